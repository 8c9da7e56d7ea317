"""Tests of the process table, with a fake /proc and with the real one."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from rt.process import table
from rt.process.table import STEP, Process

US = 1000


class Proc:
    """A fake /proc whose processes may change when one of them is read."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self.when_read: dict[int, Callable[[], None]] = {}
        self._read = table.read
        monkeypatch.setattr(table, "_PROC", str(directory))
        monkeypatch.setattr(table, "read", self.read)
        (directory / "meminfo").touch()
        self.add(1, parent=0)
        self.add(US, parent=1)

    def add(self, pid: int, *, parent: int, state: str = "S") -> None:
        folder = self._directory / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_text(f"{pid} (a) b) {state} {parent} 1 {pid} {'0 ' * 15} {pid + 1}")

    def end(self, pid: int) -> None:
        (self._directory / str(pid) / "stat").unlink()
        (self._directory / str(pid)).rmdir()

    def read(self, pid: int) -> Process | None:
        self.when_read.pop(pid, lambda: None)()
        return self._read(pid)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    return Proc(tmp_path, monkeypatch)


async def test_process_is_read_with_its_parent_session_and_start(proc: Proc) -> None:
    proc.add(20, parent=US, state="Z")
    found = await table.scan()
    assert set(found) == {1, US, 20}
    assert found[20] == Process(parent=US, session=20, zombie=True, start=21)


async def test_process_that_starts_during_the_scan_is_found(proc: Proc) -> None:
    def fork_and_end() -> None:
        proc.add(30, parent=US)
        proc.end(20)

    proc.add(20, parent=US)
    proc.when_read[20] = fork_and_end
    assert set(await table.scan()) == {1, US, 30}


@pytest.mark.parametrize("zombie", [False, True])
async def test_process_whose_parent_exits_during_the_scan_has_its_new_parent(
    proc: Proc, zombie: bool
) -> None:
    def end() -> None:
        proc.add(2, parent=US)
        proc.add(3, parent=US, state="Z") if zombie else proc.end(3)

    proc.add(2, parent=3)
    proc.add(3, parent=US)
    for pid in (2, US):  # in any order of reading
        proc.when_read[pid] = lambda: None
    proc.when_read[3] = end
    found = await table.scan()
    assert found[2].parent == US


async def test_scan_ends_if_a_parent_is_not_visible(proc: Proc) -> None:
    proc.add(20, parent=999)  # of another user, with the mount option hidepid
    with trio.fail_after(30):
        assert (await table.scan())[20].parent == 999


async def test_scan_lets_other_tasks_run(proc: Proc) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    for pid in range(2000, 2000 + 10 * STEP):
        proc.add(pid, parent=US)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        assert len(await table.scan()) == 10 * STEP + 2
        nursery.cancel_scope.cancel()
    assert turns >= 9


async def test_kill_ends_only_the_intended_processes() -> None:
    sleeper = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"]
    children = [await trio.lowlevel.open_process(sleeper) for _ in range(3)]
    try:
        starts = {
            child.pid: found.start
            for child in children
            if (found := table.read(child.pid)) is not None
        }
        kept = children[0].pid
        starts[kept] -= 1  # an earlier process had this pid
        assert await table.kill({**starts, 5_000_000: 1}) == {child.pid for child in children[1:]}
        for child in children[1:]:
            with trio.fail_after(30):
                assert await child.wait() == -signal.SIGKILL
        assert children[0].poll() is None
    finally:
        children[0].kill()
        await children[0].wait()
