"""What every test may use, and what every test has to leave behind: nothing."""

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

# How long an example takes says something of the machine, not of the program.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

PLACES = {
    "XDG_RUNTIME_DIR": "run",
    "XDG_STATE_HOME": "state",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_CACHE_HOME": "cache",
    "HOME": "home",
}
MEANT_FOR_A_ROBOT = re.compile(
    r"RT_(?!BINARY$).*|NOTIFY_SOCKET|WATCHDOG_\w+|LISTEN_\w+|JOURNAL_STREAM|NO_COLOR"
    r"|(STATE|LOGS|RUNTIME|CONFIGURATION)_DIRECTORY|COVERAGE_PROCESS_START"
)
"""Variables of the shell or service in which the tests run that would change what a robot does."""
SHM = Path("/dev/shm")
FDS = Path("/proc/self/fd")
FEW = 20


@pytest.fixture(scope="session", autouse=True)
def isolated() -> Iterator[None]:
    """No test finds the robots, options, keys and logs of this machine's user, and all robots of the tests are gone in the end."""
    with (
        tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        for variable in filter(MEANT_FOR_A_ROBOT.fullmatch, list(os.environ)):
            patch.delenv(variable)
        for variable, folder in PLACES.items():
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
    """What the names of the shared memory begin with, in this process and in others."""
    return f"/proc/{os.getpid()}/fd/{arena.fd}/"


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No test leaves a child process, a file descriptor, a file in /dev/shm or a log that writes to its stream behind."""
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
    # A descriptor that the garbage collector has yet to close is none that a robot would run out
    # of.
    left = [path for path in FDS.iterdir() if str(path) not in before and path.exists()]
    if len(left) >= FEW:
        gc.collect()
        left = [path for path in left if path.exists()]
    assert len(left) < FEW, f"the test left {len(left)} file descriptors open"
