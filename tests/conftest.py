"""What every test may use, and what every test has to leave behind: nothing."""

import gc
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, not of the program.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SHM = Path("/dev/shm")
FDS = Path("/proc/self/fd")
FEW = 20


@pytest.fixture
def prefix() -> Iterator[str]:
    """A prefix of shared memory that nobody else uses; whatever is left under it is a failure, and removed."""
    name = f"rt-test-{os.getpid()}-{secrets.token_hex(4)}."
    yield name
    for path in SHM.glob(f"{name}*"):
        path.unlink()


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
