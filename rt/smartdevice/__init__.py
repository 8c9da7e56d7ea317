"""Smart Devices: the client of each device, and the manager of all.

The manager and the process are imported where they are used; importing this package is cheap.
"""

from rt.link.link import Link, LinkGoneError, StreamLink
from rt.link.serial import SerialLink
from rt.serialports.observer import PollingObserver
from rt.serialports.port_state import PortChange
from rt.smartdevice.client import SmartDeviceClient
from rt.smartdevice.pending_replies import NoAnswerError
from rt.smartdevice.write_guard import SafetyGuard

__all__ = [
    "Link",
    "LinkGoneError",
    "NoAnswerError",
    "PollingObserver",
    "PortChange",
    "SafetyGuard",
    "SerialLink",
    "SmartDeviceClient",
    "StreamLink",
]
