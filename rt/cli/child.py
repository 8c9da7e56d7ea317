"""`_child ROLE FD [CHANNEL]`: what this executable does when the root has started it as a child; not for people."""

import faulthandler
import os
import sys

from rt import log, priority
from rt.app import ChildSettings
from rt.errors import RemoteProtocolError
from rt.supervisor.ending import exit_code
from rt.supervisor.lifeline import Lifeline
from rt.supervisor.logpipe import adopt_log_pipe

_USAGE = 2
_FDS = {"executor": 2}
"""How many file descriptors a child is given, where that is not its lifeline alone."""


def main(arguments: list[str]) -> int:
    """Be the child of a role; the settings come on the lifeline.

    Args:
        arguments: The role and the number of the lifeline's file descriptor, of the executor that of its channel too.

    Returns:
        The exit code.
    """
    match arguments:
        case [role, *fds] if len(fds) == _FDS.get(role, 1) and all(fd.isdecimal() for fd in fds):
            pass
        case _:
            sys.stderr.write(
                "rt: _child is how rt starts its own processes; `rt --help` tells what people may ask for\n"
            )
            return _USAGE
    log_pipe = adopt_log_pipe()
    if role == "device":
        priority.run_first(safe=True)
    else:
        priority.run_ordinarily()
    if role == "lint":
        from rt.lint import child as lint

        return lint.main(Lifeline.adopt(int(fds[0])))
    # The supervisor ends a child that has fallen silent with SIGABRT: where it hung is then in its last output.
    faulthandler.enable()
    log.configure(fmt="json", stream=log_pipe, app=role, pid=os.getpid())
    try:
        return _be(role, Lifeline.adopt(int(fds[0])), log_pipe, *map(int, fds[1:]))
    except BaseException as error:  # noqa: BLE001 - the end of the process: nobody else would hear of it
        return exit_code(error, f"the {role} process failed")


def _be(role: str, lifeline: Lifeline, log_pipe: int | None, channel: int = -1) -> int:
    if role == "call":  # rt.process.call.ROLE: that room is for parents
        _restore_library_path()
        from rt.process import role as call

        return call.main(lifeline, log_pipe)
    settings = _settings(lifeline.read_message())
    config = settings.config
    log.configure(
        level=config.log_level, fmt="json", stream=log_pipe, app=role, pid=os.getpid(), instance=config.instance
    )
    if role == "executor":
        _restore_library_path()
        from rt.executor import process as executor

        return executor.main(settings, lifeline, channel)
    if role in {"device", "emulator"}:
        from rt.smartdevice import process as smartdevice

        return smartdevice.main(settings, lifeline)
    sys.stderr.write(f"rt: there is no role {role!r}\n")
    return _USAGE


def _settings(message: bytes) -> ChildSettings:
    try:
        return ChildSettings.decode(message)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(
            f"the root's settings cannot be read ({error}); if rt was replaced while the robot ran, restart the robot"
        ) from None


def _restore_library_path() -> None:
    """Let programs that the team's code starts find the system's libraries, not those that the executable has unpacked."""
    if getattr(sys, "frozen", False):
        original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
        os.environ.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            os.environ["LD_LIBRARY_PATH"] = original
