"""Smart Devices: the lines to them, one client for each, the manager of all, and devices that are only played.

The manager and the process are imported where they are used; what stands here is cheap to import.
"""

from rt.smartdevice.client import SmartDeviceClient
from rt.smartdevice.emulator import EmulatedDevice, connect_emulated, run_emulated, serve_pty
from rt.smartdevice.exchange import NoAnswerError
from rt.smartdevice.guard import SafetyGuard
from rt.smartdevice.link import Link, LinkGoneError, StreamLink
from rt.smartdevice.motion import World
from rt.smartdevice.observer import PollingObserver, PortChange
from rt.smartdevice.serial_link import SerialLink
from rt.smartdevice.uid_spec import parse_uid_spec

__all__ = [
    "EmulatedDevice",
    "Link",
    "LinkGoneError",
    "NoAnswerError",
    "PollingObserver",
    "PortChange",
    "SafetyGuard",
    "SerialLink",
    "SmartDeviceClient",
    "StreamLink",
    "World",
    "connect_emulated",
    "parse_uid_spec",
    "run_emulated",
    "serve_pty",
]
