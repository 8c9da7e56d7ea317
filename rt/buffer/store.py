"""All buffers of one robot, opened when they are asked for."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Self, overload

from rt.buffer import segment
from rt.buffer.buffer import Buffer
from rt.buffer.device import DeviceBuffer, device_type
from rt.buffer.integrity import Integrity
from rt.buffer.lease import LeaseTable
from rt.buffer.wakeup import EXECUTOR_SLOT, Wakeups
from rt.buffer.write_event import WriteEvent
from rt.catalog import Catalog, from_tables
from rt.errors import DeviceBufferError

Key = int | tuple[str, int]
"""A Smart Device's UID, or the name of a peripheral's type and a number that is unique within it."""


class BufferStore(Mapping[Key, Buffer]):
    """Maps a peripheral's type and number to its buffer, among those that this process has opened.

    Args:
        catalog: What peripherals there are.
        prefix: What the names of this robot's segments begin with.
        write_event: Given to every buffer: rung when writes become pending.
        wakeups: Given to every buffer: how processes that wait for changes are woken.
        slot: The slot of this process, under whose lease it writes; that of the bells if there are
            some.
        shared: Whether buffers stand in shared memory; otherwise they are this process's own.
        lock_timeout: How long operations wait for a lock, that of a buffer or of the arena (s); 0
            where an event loop runs.

    Examples:
        >>> from rt import catalog
        >>> with BufferStore(catalog.load(), "", shared=False) as store:
        ...     pad = store.get_or_open(("gamepad", 0))
        ...     motor = store.get_or_open(12 << 72)
        ...     list(store)
        [('gamepad', 0), ('polar-bear', 56668397794435742564352)]
        >>> store.get_or_open(("toaster", 0))
        Traceback (most recent call last):
        ...
        KeyError: "the catalog has no peripheral 'toaster'"
    """

    def __init__(
        self,
        catalog: Catalog,
        prefix: str,
        *,
        write_event: WriteEvent | None = None,
        wakeups: Wakeups | None = None,
        slot: int = EXECUTOR_SLOT,
        shared: bool = True,
        lock_timeout: float = 0.0,
    ) -> None:
        self.catalog = catalog
        self._prefix = prefix
        self._write_event = write_event
        self._wakeups = wakeups
        self._slot = slot if wakeups is None else wakeups.slot
        self._shared = shared
        self._lock_timeout = lock_timeout
        self._buffers: dict[tuple[str, int], Buffer] = {}
        self._checks: dict[tuple[str, int], Integrity] = {}
        self._types = self.make_catalog(catalog)
        self._stack = contextlib.ExitStack()
        self._own_token: memoryview | None = None

    @staticmethod
    def make_catalog(catalog: Catalog | Mapping[str, object]) -> dict[str, type[Buffer]]:
        """The buffer type of each peripheral, by name, of a catalog or of raw tables in the form of catalog.toml.

        Raises:
            CatalogError: Anything in the raw tables is wrong.

        Example:
            >>> raw = {"lamp": {"device_id": 77, "params": [{"name": "lit", "type": "bool"}]}}
            >>> BufferStore.make_catalog(raw)["lamp"].params["lit"].readable
            True
        """
        catalog = catalog if isinstance(catalog, Catalog) else from_tables(catalog)
        return {
            name: Buffer.make_type(name, peripheral.params, peripheral=peripheral)
            if peripheral.device_id is None
            else device_type(peripheral)
            for name, peripheral in catalog.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all buffers; the segments stay for others."""
        self._buffers.clear()
        self._checks.clear()
        self._stack.close()

    def __getitem__(self, key: Key) -> Buffer:
        return self._buffers[self.normalize_key(key)]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._buffers)

    def __len__(self) -> int:
        return len(self._buffers)

    def normalize_key(self, key: Key) -> tuple[str, int]:
        """The type and number of a key.

        Raises:
            KeyError: The catalog has no such type or device id, or the number is none of that type.
        """
        if isinstance(key, tuple):
            name, number = key
            peripheral = self.catalog.get(name)
            if peripheral is None:
                raise KeyError(f"the catalog has no peripheral {name!r}")
            if number < 0 or (
                peripheral.device_id is not None and number >> 72 != peripheral.device_id
            ):
                raise KeyError(f"{number} is not the number of a {name}")
            return key
        if not isinstance(key, int):
            raise KeyError(f"{key!r} is neither a UID nor a type and a number")
        peripheral = self.catalog.by_device_id(key >> 72)
        if peripheral is None:
            raise KeyError(f"the catalog has no peripheral of device id {key >> 72}")
        return peripheral.name, key

    @overload
    def get_or_open(self, key: int, /, *, create: bool = True) -> DeviceBuffer: ...
    @overload
    def get_or_open(self, key: tuple[str, int], /, *, create: bool = True) -> Buffer: ...

    def get_or_open(self, key: Key, /, *, create: bool = True) -> Buffer:
        """The buffer of a key, opened if it was not.

        Raises:
            KeyError: The catalog has no such type or device id.
            BufferBusyError: The buffer has to be made, and another process makes one for longer
                than ``lock_timeout``.
            DeviceBufferError: There is no such buffer and ``create`` is False, or it cannot be
                made.
        """
        name, number = self.normalize_key(key)
        buffer = self._buffers.get((name, number))
        if buffer is None:
            kind = self._types[name]
            if self._shared:
                opened = kind.open(
                    self._segment(name, number), create=create, lock_timeout=self._lock_timeout
                )
                buffer = self._stack.enter_context(opened)
            elif create:
                buffer = kind.private()
            else:
                raise DeviceBufferError(f"there is no buffer of {name} {number}")
            buffer.write_event = self._write_event
            buffer.wakeups = self._wakeups
            buffer.token = self._find_token()
            buffer.lock_timeout = self._lock_timeout
            self._buffers[name, number] = buffer
        return buffer

    def existing(self) -> list[tuple[str, int]]:
        """The types and numbers of the buffers that the robot's processes have made so far."""
        if not self._shared:
            return list(self._buffers)
        found = []
        for name in segment.names(self._prefix):
            kind, _, number = name.removeprefix(self._prefix).rpartition("@")
            if kind in self._types and number.isascii() and number.isdigit():
                found.append((kind, int(number)))
        return sorted(found)

    def devices(self) -> dict[int, DeviceBuffer]:
        """The buffers of all Smart Devices that have been seen, by UID; ``valid`` says which are connected."""
        devices = {}
        for name, number in self.existing():
            if self.catalog[name].device_id is not None:
                with contextlib.suppress(
                    DeviceBufferError, KeyError
                ):  # a name that no robot gave is no device
                    devices[number] = self.get_or_open(number, create=False)
        return devices

    def find_damaged(self) -> dict[tuple[str, int], str]:
        """The buffers that were overwritten, and by what that shows; takes no lock. To be called again and again."""
        found = {}
        for key in self.existing():
            try:
                buffer = self.get_or_open(key, create=False)
            except DeviceBufferError as error:
                if not error.context.get("absent"):
                    found[key] = error.message
                continue
            except KeyError:  # a name that no robot gave
                continue
            if key not in self._checks:
                self._checks[key] = Integrity(buffer)
            if damage := self._checks[key].damage():
                found[key] = damage
        return found

    def recheck_suspects(self) -> dict[tuple[str, int], str]:
        """The same, of those buffers alone whose lock was held at the last look."""
        suspected = [(key, check) for key, check in self._checks.items() if check.suspected]
        return {key: damage for key, check in suspected if (damage := check.damage())}

    def replace(self, key: Key) -> None:
        """Take the name of a buffer away, so that it is made anew; in this one, the peripheral is gone.

        Raises:
            DeviceBufferError: The directory of the buffers cannot be changed now.
        """
        name, number = self.normalize_key(key)
        self._types[name].unlink(self._segment(name, number))
        self._checks.pop((name, number), None)
        buffer = self._buffers.pop((name, number), None)
        if buffer is not None:
            buffer.invalidate_without_lock()

    def _find_token(self) -> memoryview | bytes:
        """What this process's writes carry; without a lease table there is nobody who obeys them."""
        if self._own_token is None and self._shared:
            with contextlib.suppress(DeviceBufferError):
                leases = self._stack.enter_context(LeaseTable.open(self._prefix, create=False))
                self._own_token = leases.token_byte(self._slot)
        return bytes((self._slot,)) if self._own_token is None else self._own_token

    def _segment(self, name: str, number: int) -> str:
        return f"{self._prefix}{name}@{number}"
