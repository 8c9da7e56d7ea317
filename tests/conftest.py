"""Fixtures for all tests, which must leave nothing behind."""

import gc
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from rt.buffer.arena import Arena

# The duration of an example depends on the machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

DIRECTORIES = {
    "XDG_RUNTIME_DIR": "run",
    "XDG_STATE_HOME": "state",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_CACHE_HOME": "cache",
    "HOME": "home",
}
ROBOT_VARIABLES = re.compile(
    r"RT_(?!BINARY$).*|NOTIFY_SOCKET|WATCHDOG_\w+|LISTEN_\w+|JOURNAL_STREAM|NO_COLOR"
    r"|(STATE|LOGS|RUNTIME|CONFIGURATION)_DIRECTORY|COVERAGE_PROCESS_START"
)
"""Environment variables that would change the behaviour of a robot."""
SHM = Path("/dev/shm")
FDS = Path("/proc/self/fd")
FEW = 20


@pytest.fixture(scope="session", autouse=True)
def isolated() -> Iterator[None]:
    """Isolate tests from the user's robots, options, keys and logs, and check for leftovers."""
    with (
        tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        for variable in filter(ROBOT_VARIABLES.fullmatch, list(os.environ)):
            patch.delenv(variable)
        for variable, folder in DIRECTORIES.items():
            place = Path(name) / folder
            place.mkdir(mode=0o700, exist_ok=True)
            patch.setenv(variable, str(place))
        yield
        left = [str(path) for path in (Path(name) / "run").glob("rt/*")]
        assert not left, "robots were left behind"


@pytest.fixture
def arena() -> Iterator[Arena]:
    """The shared memory of a robot."""
    with Arena("test") as arena:
        yield arena


@pytest.fixture
def prefix(arena: Arena) -> str:
    """The prefix of names of the shared memory, in this and other processes."""
    return f"/proc/{os.getpid()}/fd/{arena.fd}/"


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Check that a test leaves no child process, descriptor or file in /dev/shm behind."""
    before = set(map(str, FDS.iterdir()))
    yield
    structlog.reset_defaults()
    assert not [path.name for path in SHM.glob(f"rt*{os.getpid()}*")], (
        "the test left a file in /dev/shm"
    )
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pid = None
    assert pid is None, "the test left a child process"
    # Descriptors that only wait for the garbage collector are not leaks.
    left = [path for path in FDS.iterdir() if str(path) not in before and path.exists()]
    if len(left) >= FEW:
        gc.collect()
        left = [path for path in left if path.exists()]
    assert len(left) < FEW, f"the test left {len(left)} file descriptors open"
