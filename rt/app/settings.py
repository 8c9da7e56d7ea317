"""The settings that the root passes to a child."""

from typing import Self

import msgspec

from rt.buffer.wakeup import ROOT_SLOT
from rt.config import Config
from rt.protocol import structs


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a child, the only message on its lifeline.

    Attributes:
        role: ``device``, ``executor`` or ``emulator``.
        config: The options, with resolved addresses.
        directory: The instance directory.
        shm_prefix: The prefix of the names of the robot's shared memory.
        write_event: The inherited eventfd that wakes the device process.
        wakeups: The inherited eventfds that wake the processes that wait for changes, by slot.
        brake: The inherited ends of the connection with the brake, for the device process; see
            `rt.brake.connection`.
        slot: The child's slot in ``wakeups``.
        emulated: Virtual Smart Devices to run, as ``UID[:JSON]``, for the role ``emulator``.
    """

    role: str
    config: Config
    directory: str
    shm_prefix: str
    write_event: int
    wakeups: tuple[int, ...] = ()
    brake: tuple[int, ...] = ()
    slot: int = ROOT_SLOT
    emulated: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the message for the lifeline (MessagePack)."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Return the settings in a message.

        Raises:
            RemoteProtocolError: The message is invalid.
        """
        return structs.decode(message, cls)
