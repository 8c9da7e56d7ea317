"""The check that the instance directory and the sockets in it exist.

logind removes /run/user/UID when the last session of a user ends. The children do not notice, but
without the sockets neither commands nor restarted children reach the robot.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from rt import log
from rt.buffer.session import SOCKET_NAME as SESSION_SOCKET
from rt.buffer.session import Registrar
from rt.errors import RuntimeBaseException
from rt.instance import Instance
from rt.logs import place
from rt.transport.zmq_socket import rebind_socket_files

_IPC = "ipc://"


async def watch_directory(
    instance: Instance,
    registrar: Registrar,
    end_mode: Callable[[str], None],
    addresses: Sequence[str],
    log_file: Path | None = None,
    *,
    interval: float = 1.0,
) -> None:
    """Create the instance directory and its sockets again when they are removed, until cancelled.

    Args:
        instance: The instance.
        registrar: Owns the socket for sessions.
        end_mode: Ends the current mode, with a reason. Called while the directory or a socket in
            ``addresses`` is missing and cannot be created, because no command can end the mode.
        addresses: Where the router listens for commands.
        log_file: The log file, whose path is recorded in the directory, or None.
        interval: Time between two checks (s).
    """
    logged = ""
    while True:
        # At a multiple of the interval, so that the process wakes once for all periodic tasks.
        await trio.sleep(interval - trio.current_time() % interval)
        try:
            restored = _restore(instance, registrar, log_file)
        except (RuntimeBaseException, OSError) as error:
            if str(error) != logged:
                logged = str(error)
                log.get_logger().error(
                    "cannot restore the instance directory",
                    reason=logged,
                    directory=str(instance.directory),
                    remedy="restart the robot; `loginctl enable-linger` keeps /run/user without a"
                    " session",
                )
            if not (instance.is_in_place() and all(map(_exists, addresses))):
                end_mode("commands do not reach the robot: see the log")
            continue
        logged = ""
        if restored:
            log.get_logger().warning("restored removed files of the robot", files=restored)


def _exists(address: str) -> bool:
    """Return whether the socket file of an address exists, if the address names one."""
    return not address.startswith(_IPC) or Path(address.removeprefix(_IPC)).is_socket()


def _restore(instance: Instance, registrar: Registrar, log_file: Path | None) -> list[str]:
    """Create what is missing in the instance directory, and return its names."""
    restored = [str(instance.directory)] if instance.restore() else []
    restored += [SESSION_SOCKET] if registrar.rebind() else []
    restored += [Path(address).name for address in rebind_socket_files()]
    if log_file is not None:
        place.link_log(instance.directory, log_file)
    return restored
