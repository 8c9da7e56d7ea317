"""What every process that can be run and waited for has, whoever made it."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class ChildProcess(Protocol):
    """A process of ours; a `trio.Process` is one too."""

    @property
    def pid(self) -> int | None:
        """Its number, or None before it was started."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the number of the signal that ended it, or None as long as it has not ended."""

    async def wait(self) -> int | None:
        """Wait until it has ended; its returncode. A checkpoint; may be called again after a cancel."""

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); nothing if it has ended."""

    def kill(self) -> None:
        """End it (SIGKILL); nothing if it has ended."""


@runtime_checkable
class Startable(ChildProcess, Protocol):
    """A process that is described first and started later."""

    async def start(self) -> None:
        """Start it."""
