"""The lifeline with real processes: when the parent is gone, its children are, whatever state they are in."""

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
from support.supervised import gone

from rt.errors import LocalProtocolError, RemoteProtocolError
from rt.process.lifeline import Lifeline, open_lifeline

ROOT = Path(__file__).parents[2]

PARENT = """
import subprocess, sys, time
from rt.process.lifeline import arm, open_lifeline
ours, theirs = open_lifeline(b"settings" if sys.argv[1] == "child" else None)
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True)
if sys.argv[1] == "parent":
    arm(theirs, child.pid)
print("armed", flush=True)
theirs.close()
time.sleep(1000)
"""

CHILD = """
import os, signal, subprocess, sys
from rt.process.lifeline import Lifeline
lifeline = Lifeline.adopt(int(sys.argv[1]))
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
    "deaf": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); import time; time.sleep(1000)",
}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Lifeline]]:
    ours, theirs = open_lifeline(b"hello")
    lifeline = Lifeline.adopt(theirs.detach())
    with ours:
        yield ours, lifeline
    lifeline.close()


@pytest.mark.parametrize("who", ["child", "parent"])
@pytest.mark.parametrize("state", STATES)
async def test_the_kernel_kills_the_group_of_a_dead_parent(who: str, state: str) -> None:
    program = (CHILD if who == "child" else "") + FAMILY + STATES[state]
    with subprocess.Popen(  # noqa: ASYNC220 - exec is all that it waits for
        [sys.executable, "-c", PARENT, who, program], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        with trio.fail_after(20):
            await trio.lowlevel.wait_readable(parent.stdout)
            said = sorted(
                parent.stdout.readline().split() for _ in range(2)
            )  # the parent's line and its child's, in any order
            assert said[1] == [b"armed"]
            child, grandchild = map(int, said[0])
            try:
                parent.kill()
                await gone(child)
                await gone(grandchild)
            except trio.Cancelled:
                os.killpg(child, signal.SIGKILL)
                raise


async def test_the_end_of_the_parent_wakes_whoever_waits(
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


async def test_a_wait_that_was_cancelled_can_be_made_again(
    pair: tuple[socket.socket, Lifeline],
) -> None:
    ours, lifeline = pair
    lifeline.read_message()
    with trio.move_on_after(0.01):
        await lifeline.closed()
    ours.close()
    with trio.fail_after(30):
        await lifeline.closed()


def test_settings_of_any_usual_size_fit() -> None:
    ours, theirs = open_lifeline(b"x" * 65536)
    lifeline = Lifeline.adopt(theirs.detach())
    with ours:
        assert lifeline.read_message() == b"x" * 65536
    lifeline.close()


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="do not fit"):
        open_lifeline(b"x" * 10_000_000)


def test_a_parent_that_says_nothing_is_not_waited_for() -> None:
    ours, theirs = open_lifeline(None)
    lifeline = Lifeline.adopt(theirs.detach())
    with ours, pytest.raises(RemoteProtocolError, match="no settings"):
        lifeline.read_message(timeout=0.05)
    lifeline.close()


def test_a_parent_that_is_gone_before_it_spoke_is_an_error() -> None:
    ours, theirs = open_lifeline(None)
    ours.close()
    lifeline = Lifeline.adopt(theirs.detach())
    with pytest.raises(RemoteProtocolError, match="ended before"):
        lifeline.read_message()
    lifeline.close()


def test_nobody_we_start_inherits_the_lifeline(pair: tuple[socket.socket, Lifeline]) -> None:
    assert not os.get_inheritable(pair[1].fileno())


def test_a_descriptor_that_is_no_socket_is_no_lifeline() -> None:
    with (
        Path(os.devnull).open("rb") as file,
        pytest.raises(LocalProtocolError, match="is no lifeline"),
    ):
        Lifeline.adopt(file.fileno())
