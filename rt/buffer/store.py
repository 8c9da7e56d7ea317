"""The buffers of one robot, opened on demand."""

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
"""A Smart Device's UID, or the name of a peripheral's type and a number unique within it."""


class BufferStore(Mapping[Key, Buffer]):
    """Maps types and numbers of peripherals to the buffers that this process has opened.

    Args:
        catalog: The known peripherals.
        prefix: The prefix of the names of this robot's segments.
        write_event: Set on every buffer: signalled when writes become pending.
        wakeups: Set on every buffer: wake the processes that wait for changes.
        slot: The slot of this process, under whose lease it writes; that of ``wakeups`` if given.
        shared: Whether buffers are in shared memory; otherwise they are private to this process.
        lock_timeout: How long operations wait for the lock of a buffer or of the arena (s); 0 for
            event loops.

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
        """Return the buffer type of each peripheral by name.

        Args:
            catalog: A catalog, or raw tables in the form of catalog.toml.

        Raises:
            CatalogError: The raw tables are invalid.

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
        """Close all buffers; the segments stay for other processes."""
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
        """Return the type and number of a key.

        Raises:
            KeyError: The catalog has no such type or device id, or the number is not of that type.
        """
        if isinstance(key, tuple):
            name, number = key
            peripheral = self.catalog.get(name)
            if peripheral is None:
                raise KeyError(f"the catalog has no peripheral {name!r}")
            if number < 0 or (
                peripheral.device_id is not None and number >> 72 != peripheral.device_id
            ):
                raise KeyError(f"{number} is not a valid number of a {name}")
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
        """Return the buffer of a key, opening it if necessary.

        Raises:
            KeyError: The catalog has no such type or device id.
            BufferBusyError: The buffer is missing, and another process creates one for longer than
                ``lock_timeout``.
            DeviceBufferError: The buffer is missing and ``create`` is False, or it cannot be
                created.
        """
        name, number = self.normalize_key(key)
        buffer = self._buffers.get((name, number))
        if buffer is None:
            buffer_type = self._types[name]
            if self._shared:
                opened = buffer_type.open(
                    self._segment(name, number), create=create, lock_timeout=self._lock_timeout
                )
                buffer = self._stack.enter_context(opened)
            elif create:
                buffer = buffer_type.private()
            else:
                raise DeviceBufferError(f"there is no buffer of {name} {number}")
            buffer.write_event = self._write_event
            buffer.wakeups = self._wakeups
            buffer.token = self._find_token()
            buffer.lock_timeout = self._lock_timeout
            self._buffers[name, number] = buffer
        return buffer

    def existing(self) -> list[tuple[str, int]]:
        """Return the types and numbers of the buffers that the robot's processes have created."""
        if not self._shared:
            return list(self._buffers)
        found = []
        for name in segment.names(self._prefix):
            type_name, _, number = name.removeprefix(self._prefix).rpartition("@")
            if type_name in self._types and number.isascii() and number.isdigit():
                found.append((type_name, int(number)))
        return sorted(found)

    def devices(self) -> dict[int, DeviceBuffer]:
        """Return the buffers of all Smart Devices seen so far, by UID.

        ``valid`` says which devices are connected.
        """
        devices = {}
        for name, number in self.existing():
            if self.catalog[name].device_id is not None:
                # KeyError: a name that rt did not create.
                with contextlib.suppress(DeviceBufferError, KeyError):
                    devices[number] = self.get_or_open(number, create=False)
        return devices

    def find_damaged(self) -> dict[tuple[str, int], str]:
        """Return the overwritten buffers with what is wrong with them; takes no lock.

        Call this repeatedly, because a stuck lock needs several checks.
        """
        found = {}
        for key in self.existing():
            try:
                buffer = self.get_or_open(key, create=False)
            except DeviceBufferError as error:
                if not error.context.get("absent"):
                    found[key] = error.message
                continue
            except KeyError:  # a name that rt did not create
                continue
            if key not in self._checks:
                self._checks[key] = Integrity(buffer)
            if damage := self._checks[key].damage():
                found[key] = damage
        return found

    def recheck_suspects(self) -> dict[tuple[str, int], str]:
        """Return the same for those buffers whose lock was held at the last check."""
        suspected = [(key, check) for key, check in self._checks.items() if check.suspected]
        return {key: damage for key, check in suspected if (damage := check.damage())}

    def replace(self, key: Key) -> None:
        """Remove the name of a buffer so that a new one is created; invalidate the removed one.

        Raises:
            DeviceBufferError: The directory cannot be changed now.
        """
        name, number = self.normalize_key(key)
        self._types[name].unlink(self._segment(name, number))
        self._checks.pop((name, number), None)
        buffer = self._buffers.pop((name, number), None)
        if buffer is not None:
            buffer.invalidate_without_lock()

    def _find_token(self) -> memoryview | bytes:
        """Return the fencing token of this process's writes; without a lease table, its slot."""
        if self._own_token is None and self._shared:
            with contextlib.suppress(DeviceBufferError):
                leases = self._stack.enter_context(LeaseTable.open(self._prefix, create=False))
                self._own_token = leases.token_byte(self._slot)
        return bytes((self._slot,)) if self._own_token is None else self._own_token

    def _segment(self, name: str, number: int) -> str:
        return f"{self._prefix}{name}@{number}"
