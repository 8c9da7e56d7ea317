"""Tests of the lifeline with real processes: a dead parent's children are killed in any state."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from support.supervised import wait_until_exited

from rt.errors import LocalProtocolError, RemoteProtocolError
from rt.process.lifeline import Lifeline, open_lifeline

ROOT = Path(__file__).parents[2]

PARENT = """
import subprocess, sys, time
from rt.process.lifeline import arm, open_lifeline
ours, theirs = open_lifeline(b"settings" if sys.argv[1] == "child" else None)
fd = theirs.fileno()
command = [sys.executable, "-c", sys.argv[2], str(fd)]
child = subprocess.Popen(command, pass_fds=[fd], start_new_session=True)
if sys.argv[1] == "parent":
    arm(theirs, child.pid)
print("armed", flush=True)
theirs.close()
time.sleep(1000)
"""

CHILD = """
import os, signal, subprocess, sys
from rt.process.lifeline import Lifeline
lifeline = Lifeline(int(sys.argv[1]))
assert lifeline.read_message() == b"settings"
lifeline.kill_group_at_eof()
"""

FAMILY = """
import os, signal, subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"])
print(os.getpid(), grandchild.pid, flush=True)
"""

STATES = {
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "holding the interpreter's lock": "pow(7, 10**9)",
    "blocking all signals": """
import time
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
time.sleep(1000)
""",
}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Lifeline]]:
    ours, theirs = open_lifeline(b"hello")
    lifeline = Lifeline(theirs.detach())
    with ours:
        yield ours, lifeline
    lifeline.close()


@pytest.mark.parametrize("armed_by", ["child", "parent"])
@pytest.mark.parametrize("state", STATES)
async def test_kernel_kills_the_group_when_the_parent_dies(armed_by: str, state: str) -> None:
    program = (CHILD if armed_by == "child" else "") + FAMILY + STATES[state]
    with subprocess.Popen(  # noqa: ASYNC220 - waits for exec only
        [sys.executable, "-c", PARENT, armed_by, program], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        with trio.fail_after(20):
            await trio.lowlevel.wait_readable(parent.stdout)
            # The lines of the parent and its child arrive in any order.
            pids, armed = sorted(parent.stdout.readline().split() for _ in range(2))
            assert armed == [b"armed"]
            child, grandchild = map(int, pids)
            try:
                parent.kill()
                await wait_until_exited(child)
                await wait_until_exited(grandchild)
            except trio.Cancelled:
                os.killpg(child, signal.SIGKILL)
                raise


async def test_death_of_the_parent_wakes_a_waiting_task(
    pair: tuple[socket.socket, Lifeline],
) -> None:
    ours, lifeline = pair
    assert lifeline.read_message() == b"hello"
    assert not lifeline.is_closed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lifeline.closed)
        await trio.testing.wait_all_tasks_blocked(0.01)
        ours.close()
    assert lifeline.is_closed()
    await lifeline.closed()


async def test_cancelled_wait_can_be_repeated(pair: tuple[socket.socket, Lifeline]) -> None:
    ours, lifeline = pair
    lifeline.read_message()
    with trio.move_on_after(0.01):
        await lifeline.closed()
    ours.close()
    with trio.fail_after(30):
        await lifeline.closed()


def test_settings_of_64_kib_fit() -> None:
    ours, theirs = open_lifeline(b"x" * 65536)
    lifeline = Lifeline(theirs.detach())
    with ours:
        assert lifeline.read_message() == b"x" * 65536
    lifeline.close()


def test_settings_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(LocalProtocolError, match="do not fit"):
        open_lifeline(b"x" * 10_000_000)


def test_silent_parent_is_an_error_after_the_timeout() -> None:
    ours, theirs = open_lifeline(None)
    lifeline = Lifeline(theirs.detach())
    with ours, pytest.raises(RemoteProtocolError, match="received no settings"):
        lifeline.read_message(timeout=0.05)
    lifeline.close()


def test_parent_that_died_before_it_sent_settings_is_an_error() -> None:
    ours, theirs = open_lifeline(None)
    ours.close()
    lifeline = Lifeline(theirs.detach())
    with pytest.raises(RemoteProtocolError, match="died before"):
        lifeline.read_message()
    lifeline.close()


def test_lifeline_is_not_inheritable(pair: tuple[socket.socket, Lifeline]) -> None:
    assert not os.get_inheritable(pair[1].fileno())


def test_descriptor_that_is_not_a_socket_is_rejected() -> None:
    with (
        Path(os.devnull).open("rb") as file,
        pytest.raises(LocalProtocolError, match="is not a lifeline"),
    ):
        Lifeline(file.fileno())
