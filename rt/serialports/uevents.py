"""Receives events of the kernel and udev about ttys, through pyudev.

Where udevd runs, its events are used and not the kernel's: by then a port has its final permissions
and links.

Invariant: nothing blocks, and no program is started. pyudev finds libudev with
    `ctypes.util.find_library`, which runs ldconfig or even a compiler; here the library is given by
    the name that the system's loader uses.
"""

import os
import socket
from pathlib import Path
from typing import Any, Final, NamedTuple

from rt.errors import DeviceError
from rt.serialports.port_state import PortEvent

LIBRARY: Final = "libudev.so.1"
UDEVD: Final = Path("/run/udev/control")
MAX_EVENTS: Final = 16
"""The most events that one call of `read` returns: each costs 0.1 ms of the event loop."""

_NUMBER: Final = "/sys/kernel/uevent_seqnum"


class UdevUnavailableError(DeviceError):
    """Events about ports are not available: there is no libudev, or no netlink."""


class MonitorEvents(NamedTuple):
    """The events since the last call.

    Attributes:
        events: Events about ttys that have a file, oldest first.
        lost: Whether the kernel's buffer overflowed, so that some events are lost.
    """

    events: list[PortEvent]
    lost: bool


class UdevMonitor:
    """Receives events about ttys from its creation on.

    Attributes:
        source: ``udev`` or ``kernel``.

    Raises:
        UdevUnavailableError: Events are not available on this system.
    """

    def __init__(self) -> None:
        self.source = "udev" if UDEVD.exists() else "kernel"
        self._monitor: Any = _open(self.source)
        # A second descriptor of the same socket: only a socket object can return its pending error.
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))

    def fileno(self) -> int:
        """Return the file descriptor that is readable when there are events."""
        return self._socket.fileno()

    def read(self) -> MonitorEvents:
        """Return the events since the last call, at most `MAX_EVENTS`.

        The next call returns the rest.

        Raises:
            UdevUnavailableError: No more events can be received.
        """
        events: list[PortEvent] = []
        lost = False
        for _ in range(MAX_EVENTS):
            try:
                device = self._monitor.poll(0)
            except OSError as error:
                # After an overflow (ENOBUFS) pyudev raises the same error at each call until the
                # socket's pending error is read.
                number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not (number or error.errno):
                    raise UdevUnavailableError(
                        f"cannot receive events of {self.source}: {error}"
                    ) from error
                lost = True
                continue
            if device is None:
                break
            if device.device_node:
                events.append(
                    PortEvent(
                        str(device.action), str(device.device_node), int(device.sequence_number)
                    )
                )
        return MonitorEvents(events, lost)

    def close(self) -> None:
        """Stop receiving; idempotent."""
        self._socket.close()
        self._monitor = None  # pyudev closes it when it is collected


def last_sequence_number() -> int:
    """Return the sequence number of the kernel's last event; 0 if it is not available."""
    try:
        return int(Path(_NUMBER).read_text())
    except (OSError, ValueError):
        return 0


def _open(source: str) -> Any:
    try:
        import pyudev
        from pyudev._ctypeslib import utils

        utils.find_library = lambda _name: LIBRARY
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source)
        monitor.filter_by("tty")
        monitor.start()
    except (ImportError, OSError, ValueError, AttributeError) as error:  # ValueError: EINVAL
        raise UdevUnavailableError(f"udev events are not available: {error}") from error
    return monitor
