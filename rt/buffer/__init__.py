"""The newest value of every parameter of every peripheral, in shared memory."""

from rt.buffer.buffer import Buffer
from rt.buffer.device import DeviceBuffer, NullDevice
from rt.buffer.lease import Lease, LeaseTable
from rt.buffer.store import BufferStore
from rt.buffer.wakeup import Wakeups
from rt.buffer.write_event import WriteEvent
from rt.catalog import Parameter
from rt.errors import BufferBusyError, DeviceBufferError
from rt.protocol.uid import BaseStructure, DeviceUID

__all__ = [
    "BaseStructure",
    "Buffer",
    "BufferBusyError",
    "BufferStore",
    "DeviceBuffer",
    "DeviceBufferError",
    "DeviceUID",
    "Lease",
    "LeaseTable",
    "NullDevice",
    "Parameter",
    "Wakeups",
    "WriteEvent",
]
