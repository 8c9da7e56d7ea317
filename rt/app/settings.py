"""What the root tells a child that it starts."""

from typing import Self

import msgspec

from rt.buffer.wakeup import ROOT_SLOT
from rt.config import Config
from rt.protocol import structs


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a child needs to know; the one message on its lifeline.

    Attributes:
        role: What it does: ``device``, ``executor`` or ``emulator``.
        config: The options, with addresses resolved.
        directory: The instance directory.
        shm_prefix: What the names of this robot's shared memory begin with.
        write_event: The inherited eventfd that wakes the device process.
        wakeups: The inherited eventfds that wake the processes that wait for changes, by seat.
        brake: The inherited ends of the connection with the brake, for the device process; see
            `rt.brake.connection`.
        slot: The child's slot among them.
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
        """The message for the lifeline (MessagePack)."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """The settings that a message carries.

        Raises:
            RemoteProtocolError: It is no such message.
        """
        return structs.decode(message, cls)
