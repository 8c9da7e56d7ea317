"""rt runs a robot: its processes, its Smart Devices and its team code.

This module lists the public API: the names in `__all__`, and the fixtures of `rt.testing`. All
other modules may change between releases.

A name is imported when it is first used, because a child process imports only what it needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rt.access.station_key import StationKey
    from rt.client.connection import Connection, connect
    from rt.errors import (
        BufferBusyError,
        CatalogError,
        ConfigError,
        DeviceBufferError,
        DeviceError,
        EmergencyStopException,
        ExecutionError,
        InstanceAbsentError,
        InstanceBusyError,
        LocalProtocolError,
        ProcessStateError,
        RemoteCallError,
        RemoteProtocolError,
        RuntimeBaseException,
    )
    from rt.process.call import CallableProcess
    from rt.process.command import CommandProcess
    from rt.process.periodic import spin
    from rt.process.run import run_process
    from rt.remote.client import Client
    from rt.remote.handler import Handler, route
    from rt.remote.node import SocketNode
    from rt.remote.service import Service
    from rt.remote.signed_node import StationNode

__version__ = "0.1.0"

_MODULES = {
    # A running robot.
    "connect": "rt.client.connection",
    "Connection": "rt.client.connection",
    "StationKey": "rt.access.station_key",
    # Remote calls and driver's stations.
    "Client": "rt.remote.client",
    "Handler": "rt.remote.handler",
    "Service": "rt.remote.service",
    "SocketNode": "rt.remote.node",
    "StationNode": "rt.remote.signed_node",
    "route": "rt.remote.handler",
    # Processes and periodic calls.
    "CallableProcess": "rt.process.call",
    "CommandProcess": "rt.process.command",
    "run_process": "rt.process.run",
    "spin": "rt.process.periodic",
    # Errors.
    "BufferBusyError": "rt.errors",
    "CatalogError": "rt.errors",
    "ConfigError": "rt.errors",
    "DeviceBufferError": "rt.errors",
    "DeviceError": "rt.errors",
    "EmergencyStopException": "rt.errors",
    "ExecutionError": "rt.errors",
    "InstanceAbsentError": "rt.errors",
    "InstanceBusyError": "rt.errors",
    "LocalProtocolError": "rt.errors",
    "ProcessStateError": "rt.errors",
    "RemoteCallError": "rt.errors",
    "RemoteProtocolError": "rt.errors",
    "RuntimeBaseException": "rt.errors",
}

__all__ = [
    "BufferBusyError",
    "CallableProcess",
    "CatalogError",
    "Client",
    "CommandProcess",
    "ConfigError",
    "Connection",
    "DeviceBufferError",
    "DeviceError",
    "EmergencyStopException",
    "ExecutionError",
    "Handler",
    "InstanceAbsentError",
    "InstanceBusyError",
    "LocalProtocolError",
    "ProcessStateError",
    "RemoteCallError",
    "RemoteProtocolError",
    "RuntimeBaseException",
    "Service",
    "SocketNode",
    "StationKey",
    "StationNode",
    "__version__",
    "connect",
    "route",
    "run_process",
    "spin",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
