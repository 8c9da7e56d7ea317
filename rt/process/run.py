"""A process from its start to its exit code.

Invariant: when `run_process` returns or raises, the process has exited.
"""

from typing import Protocol, runtime_checkable

import trio

from rt import log
from rt.errors import EmergencyStopException


@runtime_checkable
class ChildProcess(Protocol):
    """The common interface of child processes; `trio.Process` has it too."""

    @property
    def pid(self) -> int | None:
        """The process ID, or None before the start."""

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal number, or None while the process runs."""

    async def wait(self) -> int | None:
        """Wait for the exit and return `returncode`.

        A checkpoint; may be called again after a cancel.
        """

    def terminate(self) -> None:
        """Send SIGTERM, unless the process has exited."""

    def kill(self) -> None:
        """Send SIGKILL, unless the process has exited."""


@runtime_checkable
class Startable(ChildProcess, Protocol):
    """A child process that is created first and started later."""

    async def start(self) -> None:
        """Start the process."""


async def run_process(process: ChildProcess, *, terminate_timeout: float = 2.0) -> int:
    """Start a process, unless it was started before, and wait until it exits.

    A cancel terminates the process, and kills it if it still runs after ``terminate_timeout``. The
    cancel takes effect when the process has exited; a further cancel changes nothing. An error
    while waiting, such as one in its ``on_line``, does the same.

    Args:
        process: The process, which this function owns from now on.
        terminate_timeout: Time between SIGTERM and SIGKILL (s).

    Returns:
        The exit code, or minus the number of the signal that ended the process.

    Raises:
        EmergencyStopException: The exit code is 255. It takes precedence over a cancel.
        OSError: The process cannot be started.
        ValueError: ``terminate_timeout`` is negative or not a number; nothing was started.
    """
    if not terminate_timeout >= 0:
        raise ValueError(
            f"invalid terminate_timeout {terminate_timeout!r}: expected 0 or more seconds"
        )
    name = getattr(process, "name", None) or "process"
    if process.pid is None and isinstance(process, Startable):
        await process.start()
    logger = log.get_logger(process=name, pid=process.pid)
    logger.info("process started")
    try:
        await process.wait()
    except BaseException:
        try:
            await _stop(process, terminate_timeout, logger)
        finally:
            if process.returncode == EmergencyStopException.EXIT_CODE:
                raise _emergency(name, process.pid, logger) from None
        raise
    returncode = process.returncode
    assert returncode is not None
    if returncode == EmergencyStopException.EXIT_CODE:
        raise _emergency(name, process.pid, logger)
    if returncode:
        logger.warning("process failed", exit_code=returncode)
    else:
        logger.info("process exited", exit_code=returncode)
    return returncode


async def _stop(process: ChildProcess, seconds: float, logger: log.Logger) -> None:
    deadline = trio.current_time() + seconds
    with trio.CancelScope(shield=True):
        try:
            process.terminate()
            await _wait_until(deadline, process)
        except Exception:
            # The callback for its lines failed and is not called again. The process still has the
            # rest of its time.
            await _wait_until(deadline, process)
            raise
        finally:
            if process.returncode is None:
                process.kill()
                logger.error("process killed after timeout", timeout=seconds)
            await process.wait()
            logger.info("process stopped", exit_code=process.returncode)


async def _wait_until(deadline: float, process: ChildProcess) -> None:
    with trio.move_on_at(deadline):
        await process.wait()


def _emergency(name: str, pid: int | None, logger: log.Logger) -> EmergencyStopException:
    logger.critical("process raised an emergency stop")
    return EmergencyStopException(f"process {name} raised an emergency stop", process=name, pid=pid)
