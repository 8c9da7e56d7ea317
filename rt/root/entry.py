"""The entry point of child processes, `_child ROLE FD [CHANNEL]`; not for users."""

import faulthandler
import os
import sys

from rt import log, priority
from rt.app import ChildSettings
from rt.errors import RemoteProtocolError
from rt.process.exit_status import exit_code
from rt.process.lifeline import Lifeline
from rt.process.logpipe import adopt_log_pipe

_USAGE_ERROR = 2


def main(arguments: list[str]) -> int:
    """Run a child in a role, with the settings from its lifeline.

    Args:
        arguments: The role and the descriptor number of the lifeline; for the executor also that of
            the channel.

    Returns:
        The exit code.
    """
    role, *fds = arguments or [""]
    if len(fds) != (2 if role == "executor" else 1) or not all(map(str.isdecimal, fds)):
        sys.stderr.write(
            "rt: `_child` is for rt's own processes; run `rt --help` for the commands\n"
        )
        return _USAGE_ERROR
    log_pipe = adopt_log_pipe()
    if role == "device":
        priority.set_high(safe=True)
    else:
        priority.set_normal()
    if role == "lint":
        from rt.lint import child as lint

        return lint.main(Lifeline(int(fds[0])))
    # The supervisor sends SIGABRT to a silent child; then the traceback is in its output.
    faulthandler.enable()
    log.configure(fmt="json", stream=log_pipe, app=role, pid=os.getpid())
    try:
        return _run_role(role, Lifeline(int(fds[0])), log_pipe, *map(int, fds[1:]))
    except BaseException as error:  # noqa: BLE001 - the process ends here
        return exit_code(error, f"{role} process failed")


def _run_role(role: str, lifeline: Lifeline, log_pipe: int | None, channel: int = -1) -> int:
    if role == "call":  # rt.process.call.ROLE; that module is for parents
        _restore_library_path()
        from rt.process import callable_child as call

        return call.main(lifeline, log_pipe)
    try:
        settings = ChildSettings.decode(lifeline.read_message())
    except RemoteProtocolError as error:
        raise RemoteProtocolError(
            f"cannot read the settings from the root ({error}); if rt was updated while the robot"
            " ran, restart the robot"
        ) from None
    config = settings.config
    log.configure(
        level=config.log_level,
        fmt="json",
        stream=log_pipe,
        app=role,
        pid=os.getpid(),
        instance=config.instance,
    )
    if role == "executor":
        _restore_library_path()
        from rt.executor import process as executor

        return executor.main(settings, lifeline, channel)
    if role in {"device", "emulator"}:
        from rt.smartdevice import process as smartdevice

        return smartdevice.main(settings, lifeline)
    sys.stderr.write(f"rt: unknown role {role!r}\n")
    return _USAGE_ERROR


def _restore_library_path() -> None:
    """Restore the library path for programs that team code starts.

    The bootloader of a one-file executable has set it to the unpacked libraries.
    """
    if getattr(sys, "frozen", False):
        original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
        os.environ.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            os.environ["LD_LIBRARY_PATH"] = original
