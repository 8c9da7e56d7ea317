"""What every test may use, and what every test has to leave behind: nothing."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from rt.buffer.arena import Arena

# How long an example takes says something of the machine, not of the program.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

FDS = Path("/proc/self/fd")
FEW = 20


@pytest.fixture
def arena() -> Iterator[Arena]:
    """The shared memory of a robot."""
    with Arena("test") as arena:
        yield arena


@pytest.fixture
def prefix(arena: Arena) -> str:
    """What the names of the shared memory begin with, in this process and in others."""
    return arena.public_prefix


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No test leaves a child process, or a file descriptor, behind."""
    before = set(map(str, FDS.iterdir()))
    yield
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pid = None
    assert pid is None, "the test left a child process"
    # A descriptor that the garbage collector has yet to close is none that a robot would run out of.
    left = [path for path in FDS.iterdir() if str(path) not in before and path.exists()]
    if len(left) >= FEW:
        gc.collect()
        left = [path for path in left if path.exists()]
    assert len(left) < FEW, f"the test left {len(left)} file descriptors open"
