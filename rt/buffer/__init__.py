"""The blackboard: the newest value of every parameter of every peripheral, in shared memory."""

from rt.buffer.bells import Bells
from rt.buffer.buffer import Buffer
from rt.buffer.device import DeviceBuffer, NullDevice
from rt.buffer.doorbell import Doorbell
from rt.buffer.layout import BaseStructure
from rt.buffer.lease import Lease, LeaseTable
from rt.buffer.store import BufferStore
from rt.buffer.uid import DeviceUID
from rt.catalog import Parameter
from rt.errors import BufferBusyError, DeviceBufferError

__all__ = [
    "BaseStructure",
    "Bells",
    "Buffer",
    "BufferBusyError",
    "BufferStore",
    "DeviceBuffer",
    "DeviceBufferError",
    "DeviceUID",
    "Doorbell",
    "Lease",
    "LeaseTable",
    "NullDevice",
    "Parameter",
]
