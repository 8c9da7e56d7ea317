"""Tests of orphans, in a process of their own that is a subreaper."""

import subprocess
import sys
import textwrap

import pytest

PRELUDE = r"""
import contextlib, os, signal, subprocess, sys, time
import trio
from rt.process import group, orphans, table as processes

SLEEP = "import time; time.sleep(100)"

def sleeper():
    return [sys.executable, "-I", "-S", "-c", SLEEP]

def program(body):
    return [sys.executable, "-I", "-S", "-c", "import os, subprocess, sys, time\n" + body]

def daemon(depth=1, stay=False):
    # A program that forks, leaves the session and prints the pid of its last process.
    return program(f'''
def split(depth):
    if os.fork():
        if {stay} and depth < {depth}:
            time.sleep(100)
        os._exit(0)
    os.setsid()
    if depth:
        split(depth - 1)
    else:
        print(os.getpid(), flush=True)
        os.close(1)
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", {SLEEP!r}], {{}})
split({depth})
''')

async def start(command, **options):
    process = await orphans.open_process(command, stdout=subprocess.PIPE, **options)
    line = b""
    while not line.endswith(b"\n"):
        got = await process.stdout.receive_some()
        assert got, "the program failed"
        line += got
    await process.stdout.aclose()
    return process, int(line)

def starts_in_background(command):
    # A child that starts a program from a shell that exits, prints its pid, and keeps running.
    return program(f'''
pid = int(subprocess.check_output(["sh", "-c", {command + " >/dev/null 2>&1 & echo $!"!r}]))
while True:
    words = open(f"/proc/{{pid}}/cmdline").read()
    if "echo $!" not in words and words.partition(chr(0))[0] not in {{"env", "setsid"}}:
        break
    time.sleep(0.005)
print(pid, flush=True)
time.sleep(100)
''')

def killed(process):
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process.pid

def is_running(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

async def main():
    with trio.fail_after(30), contextlib.nullcontext() if NO_SUBREAPER else orphans.subreaper():
        await test()
    print("passed")
"""


def run(body: str, *, subreaper: bool = True) -> None:
    program = (
        PRELUDE.replace("NO_SUBREAPER", str(not subreaper))
        + "async def test():\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
        + "\ntrio.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "passed\n", done.stdout + done.stderr


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_daemon_is_killed_at_any_depth(depth: int) -> None:
    run(f"""
        process, pid = await start(daemon({depth}))
        await process.wait()
        assert is_running(pid)
        assert await orphans.kill() == 1
        assert not is_running(pid)
        assert await orphans.kill() == 0
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        raise AssertionError("an orphan was not reaped")
    """)


def test_orphan_that_cannot_be_killed_is_tried_once() -> None:
    run("""
        process, pid = await start(daemon())
        await process.wait()
        tried = []
        kill, processes.kill = processes.kill, lambda starts: refuse(starts)
        async def refuse(starts):
            await trio.lowlevel.checkpoint()
            tried.append(set(starts))
            return set()
        assert await orphans.kill() == 0
        assert tried == [{pid}]
        processes.kill = kill
        assert await orphans.kill() == 1
    """)


def test_scan_of_many_processes_lets_other_tasks_run() -> None:
    run("""
        turns = 0
        async def other():
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1
        listdir = os.listdir
        os.listdir = lambda path: [*listdir(path), *["1"] * 6400]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await orphans.kill()
            assert turns >= 100, turns
            nursery.cancel_scope.cancel()
    """)


def test_descendants_of_an_orphan_are_killed_too() -> None:
    run("""
        process, pid = await start(daemon(4, stay=True))
        await process.wait()
        assert await orphans.kill() >= 3
        assert not is_running(pid)
    """)


def test_own_children_are_not_orphans() -> None:
    run(
        """
        before = subprocess.Popen(sleeper())
        stack = contextlib.ExitStack()
        stack.enter_context(orphans.subreaper())
        own = await orphans.open_process(sleeper())
        assert await orphans.kill() == 0
        assert is_running(before.pid) and is_running(own.pid)
        for process in (before, own):
            process.kill()
        await own.wait()
        assert own.returncode == -9
        assert before.wait() == -9
    """,
        subreaper=False,
    )


def test_child_that_is_being_started_is_not_an_orphan() -> None:
    run("""
        started = []
        async def starter():
            for _ in range(20):
                started.append(await orphans.open_process(sleeper()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(starter)
            while len(started) < 20:
                assert await orphans.kill() == 0
        assert all(is_running(each.pid) for each in started)
        for each in started:
            each.kill()
            assert await each.wait() == -9
    """)


def test_exited_orphan_is_reaped_and_no_exit_status_is_lost() -> None:
    run(
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(orphans.reap)
            await trio.testing.wait_all_tasks_blocked()
            process, pid = await start(daemon(0))
            assert await process.wait() == 0
            os.kill(pid, signal.SIGTERM)
            while os.path.exists(f"/proc/{pid}"):
                await trio.sleep(0.01)
            own = await orphans.open_process(program("sys.exit(7)"))
            await trio.sleep(1.2)
            assert await own.wait() == 7
            nursery.cancel_scope.cancel()
    """.replace("trio.testing.wait_all_tasks_blocked()", "trio.lowlevel.checkpoint()")
    )


def test_process_that_is_no_subreaper_kills_nothing() -> None:
    run(
        """
        process, pid = await start(daemon(0))
        await process.wait()
        assert await orphans.kill() == 0
        assert is_running(pid)
        os.kill(pid, signal.SIGKILL)
    """,
        subreaper=False,
    )


def test_subreaper_ends_with_its_block() -> None:
    run(
        """
        with orphans.subreaper():
            pass
        process, pid = await start(daemon(0))
        await process.wait()
        assert int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]) != os.getpid()
        assert await orphans.kill() == 0
        os.kill(pid, signal.SIGKILL)
        """,
        subreaper=False,
    )


IN_THE_BACKGROUND = {
    "of a shell": "sleep 100",
    "in a session of its own": "setsid sleep 100",
    "with other variables": "FOO=1 PATH=/usr/bin:/bin sleep 100",
    "without variables": "env -i sleep 100",
    "below another program": "setsid sh -c 'sleep 100; true'",
}


@pytest.mark.parametrize("command", IN_THE_BACKGROUND.values(), ids=IN_THE_BACKGROUND)
def test_background_program_runs_as_long_as_its_child(command: str) -> None:
    run(f"""
        one, of_one = await start(starts_in_background({command!r}), start_new_session=True)
        two, of_two = await start(starts_in_background({command!r}), start_new_session=True)
        other = await orphans.open_process(sleeper(), start_new_session=True)
        assert await group.kill_remaining(killed(other)) == 0
        assert is_running(of_one) and is_running(of_two)
        await other.wait()
        await group.kill_remaining(killed(one))
        assert not is_running(of_one)
        assert is_running(of_two)
        await one.wait()
        assert await orphans.kill() == 0
        await group.kill_remaining(killed(two))
        assert not is_running(of_two)
        await two.wait()
    """)


def test_descendant_of_a_background_program_is_spared_too() -> None:
    run("""
        command = "setsid sh -c 'sleep 98765; true'"
        child, shell = await start(starts_in_background(command), start_new_session=True)
        def sleepers():
            return [pid for pid, each in processes.scan_blocking().items() if each.parent == shell]
        while not sleepers():
            await trio.sleep(0.01)
        (below,) = sleepers()
        assert await orphans.kill() == 0
        assert is_running(below)
        await group.kill_remaining(killed(child))
        assert not is_running(below)
        await child.wait()
    """)


def test_untagged_program_is_killed_with_any_child() -> None:
    run("""
        command = starts_in_background("env -i setsid sleep 100")
        child, pid = await start(command, start_new_session=True)
        assert await orphans.kill() == 1
        assert not is_running(pid)
        child.kill()
        await child.wait()
    """)


def test_kill_tree_kills_background_programs() -> None:
    run("""
        child, pid = await start(starts_in_background("setsid sleep 100"), start_new_session=True)
        await group.kill_tree(child)
        assert not is_running(pid)
    """)


def test_kill_of_many_processes_lets_other_tasks_run() -> None:
    run("""
        import pathlib, tempfile
        FIRST, COUNT = 5_000_000, 400  # above the largest pid of the system
        folder = pathlib.Path(tempfile.mkdtemp())
        leader = await orphans.open_process(program(""), start_new_session=True)
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
        for pid in range(FIRST, FIRST + COUNT):
            parent, session = (os.getpid(), 1) if pid % 2 else (1, leader.pid)
            (folder / str(pid)).mkdir()
            stat = f"{pid} (x) S {parent} 1 {session} {'0 ' * 15} 7"
            (folder / str(pid) / "stat").write_text(stat)
        processes._PROC = str(folder)
        reads, longest = [], 0
        read = processes.read
        processes.read = lambda pid: reads.append(pid) or read(pid)
        async def ticker():
            nonlocal longest
            while True:
                longest = max(longest, len(reads))
                reads.clear()
                await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ticker)
            await group.kill_remaining(leader.pid)
            nursery.cancel_scope.cancel()
        assert 0 < longest <= 4 * processes.STEP, longest
        processes._PROC = "/proc"
        __import__("shutil").rmtree(folder)
        await leader.wait()
    """)
