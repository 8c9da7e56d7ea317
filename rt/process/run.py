"""From a process that is described to its exit code, whatever comes between.

The rule of this module: when `run_process` is left, by whatever way, the process has ended.
"""

import trio

from rt import log
from rt.errors import EmergencyStopException
from rt.process.base import ChildProcess, Startable


async def run_process(process: ChildProcess, *, terminate_timeout: float = 2.0) -> int:
    """Start a process if it has not been started, and wait for its end.

    A cancel terminates it, and kills it if it still runs after ``terminate_timeout``; only then
    does the cancel go on. Another cancel meanwhile changes nothing. An error while it is waited
    for, as one of its ``on_line``, is treated alike.

    Args:
        process: What to run; one that was started by somebody else is owned from now on.
        terminate_timeout: Seconds from the request to end until it is killed.

    Returns:
        Its exit code, or minus the number of the signal that ended it.

    Raises:
        EmergencyStopException: Its exit code says so (255); it goes before a cancel.
        OSError: It cannot be started.
        ValueError: ``terminate_timeout`` is not a time; nothing is started then.
    """
    if not terminate_timeout >= 0:
        raise ValueError(
            f"terminate_timeout={terminate_timeout!r} is not a time: it has to be a number of seconds, 0 or more"
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
            await _end(process, terminate_timeout, logger)
        finally:
            if process.returncode == EmergencyStopException.EXIT_CODE:
                raise _emergency(name, process.pid, logger) from None
        raise
    returncode = process.returncode
    assert returncode is not None
    if returncode == EmergencyStopException.EXIT_CODE:
        raise _emergency(name, process.pid, logger)
    if returncode:
        logger.warning("process ended with a failure", exit_code=returncode)
    else:
        logger.info("process ended", exit_code=returncode)
    return returncode


async def _end(process: ChildProcess, seconds: float, logger: log.Logger) -> None:
    deadline = trio.current_time() + seconds
    with trio.CancelScope(shield=True):
        try:
            process.terminate()
            await _wait_until(deadline, process)
        except Exception:
            # Whoever reads its lines has failed, and is not asked again; the process has its time
            # all the same.
            await _wait_until(deadline, process)
            raise
        finally:
            if process.returncode is None:
                process.kill()
                logger.error(
                    "process was killed, since it did not end when it was asked to",
                    patience=seconds,
                )
            await process.wait()
            logger.info("process was stopped", exit_code=process.returncode)


async def _wait_until(deadline: float, process: ChildProcess) -> None:
    with trio.move_on_at(deadline):
        await process.wait()


def _emergency(name: str, pid: int | None, logger: log.Logger) -> EmergencyStopException:
    logger.critical("process raised an emergency stop")
    return EmergencyStopException(f"process {name} raised an emergency stop", process=name, pid=pid)
