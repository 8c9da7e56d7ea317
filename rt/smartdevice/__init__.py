"""Smart Devices: the lines to them, one client for each, the manager of all, and devices that are only played.

The manager, the process and the devices that are played are imported where they are used; what
stands here is cheap to import.
"""

from rt.link.link import Link, LinkGoneError, StreamLink
from rt.link.serial import SerialLink
from rt.serialports.observer import PollingObserver, PortChange
from rt.smartdevice.client import SmartDeviceClient
from rt.smartdevice.guard import SafetyGuard
from rt.smartdevice.pending_replies import NoAnswerError

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
