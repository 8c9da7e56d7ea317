"""What the kernel and udev say of ttys, through pyudev.

The rule of this module: nothing blocks, and nothing is started. pyudev finds libudev with
`ctypes.util.find_library`, which runs ldconfig or even a compiler; here the library is named, as
the system's loader knows it.

Where udevd runs, it is listened to rather than the kernel: a port's permissions and links are as
they should be by then.
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
"""How many news one call takes at most: each costs 0.1 ms, and motors wait for nobody."""

_NUMBER: Final = "/sys/kernel/uevent_seqnum"


class UdevUnavailableError(DeviceError):
    """This system does not say when ports appear: there is no libudev, or no netlink."""


class MonitorEvents(NamedTuple):
    """What was said since the last time.

    Attributes:
        news: What was said of ttys that have a file, oldest first.
        lost: Whether more was said than the kernel keeps, so that some of it is lost.
    """

    events: list[PortEvent]
    lost: bool


class UdevMonitor:
    """Hears what is said of ttys from the moment on when it is made.

    Attributes:
        source: ``udev`` or ``kernel``, whom it listens to.

    Raises:
        UdevUnavailableError: There is nobody to listen to on this system.
    """

    def __init__(self) -> None:
        self.source = "udev" if UDEVD.exists() else "kernel"
        self._monitor: Any = _open(self.source)
        # A second descriptor of the same socket: only a socket object can be asked for its error.
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))

    def fileno(self) -> int:
        """Return the file descriptor that is readable when there is something to hear."""
        return self._socket.fileno()

    def read(self) -> MonitorEvents:
        """Return what was said since the last time, at most `MAX_EVENTS`; the rest is kept for the next call.

        Raises:
            UdevUnavailableError: It hears nothing any more.
        """
        events: list[PortEvent] = []
        lost = False
        for _ in range(MAX_EVENTS):
            try:
                device = self._monitor.poll(0)
            except OSError as error:
                # After an overflow (ENOBUFS) pyudev says the same at each call, until somebody asks
                # the socket for it.
                number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not (number or error.errno):
                    raise UdevUnavailableError(
                        f"what {self.source} says cannot be heard: {error}"
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

    def set_buffer_size(self, size: int) -> None:
        """Let the kernel keep about so many bytes of what is said until it is heard; needs CAP_NET_ADMIN.

        Raises:
            OSError: It is not allowed.
        """
        self._monitor.set_receive_buffer_size(size)

    def close(self) -> None:
        """Listen no more; harmless if it is closed."""
        self._socket.close()
        self._monitor = None  # pyudev closes what nobody uses


def last_sequence_number() -> int:
    """Return the number of the last thing that the kernel has said; 0 if it does not tell."""
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
    except (
        ImportError,
        OSError,
        ValueError,
        AttributeError,
    ) as error:  # ValueError is how pyudev says EINVAL
        raise UdevUnavailableError(f"ports are not announced on this system: {error}") from error
    return monitor
