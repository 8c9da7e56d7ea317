"""How a buffer stands in memory.

A segment is a header, the state of the buffer's kind, an update block (the newest values of the
device), a write block (the values to send to it) and the marks of the leases under which they were
written (`rt.buffer.lease`). Both blocks are packed and in the order of the parameter ids,
little-endian, exactly as values travel on the wire, so that a run of neighbouring parameters is one
slice of a message.

What a transaction may change stands in one piece, from the header's ``pending`` to the end of the
marks. Behind it is room for a copy of that piece, the shadow: a transaction first copies what is
there into it, and only then changes anything, so that whoever takes the lock over from a dead owner
can put back what was there before. Last come counters, which no transaction takes back.
"""

import ctypes
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from rt.buffer import mutex
from rt.catalog import Parameter
from rt.protocol.uid import BaseStructure

MAGIC = b"rtbuffer"
VERSION = 4


class Header(ctypes.Structure):
    """What every buffer begins with; 208 bytes.

    Its fields: ``magic``, ``version`` and ``size`` (bytes of the segment) and ``catalog_hash`` tell
    whether a reader understands the rest; ``generation`` counts how often an owner has opened it
    and ``writer`` is that owner's process; then the mutex; ``valid`` says that the peripheral is
    there; ``recoveries`` counts owners of the lock that died; ``presence`` counts how often the
    peripheral came or went; ``watchers`` is the bitmap of the seats whose bells are to be rung at
    the next change; ``depth`` is how many transactions the lock's owner is in, and ``journal``
    whether the shadow holds what was before them.

    The rest is what a transaction may change: ``pending``, ``updated`` and ``pending_read`` are the
    bitmaps of parameters to be written, of those that came in, and of those to be read;
    ``last_update`` is when a value came in (s since the epoch), and ``update_stamp`` the same by
    `rt.buffer.clock` (ns; 0 for never).
    """

    _fields_ = (
        ("magic", ctypes.c_char * 8),
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("catalog_hash", ctypes.c_uint64),
        ("generation", ctypes.c_uint32),
        ("writer", ctypes.c_uint32),
        ("_reserved", ctypes.c_uint8 * 32),
        ("mutex", ctypes.c_uint8 * mutex.SIZE),
        ("valid", ctypes.c_uint32),
        ("recoveries", ctypes.c_uint32),
        ("watchers", ctypes.c_uint64),
        ("presence", ctypes.c_uint32),
        ("depth", ctypes.c_uint32),
        ("journal", ctypes.c_uint64),
        ("pending", ctypes.c_uint64),
        ("updated", ctypes.c_uint64),
        ("pending_read", ctypes.c_uint64),
        ("last_update", ctypes.c_double),
        ("last_write", ctypes.c_double),
        ("update_stamp", ctypes.c_uint64),
    )


assert ctypes.sizeof(Header) == 208
assert Header.mutex.offset % 8 == 0


class Slice(NamedTuple):
    """A run of neighbouring parameters: where it stands in the block and in a message's data, and its length (bytes)."""

    block: int
    data: int
    length: int


def make_block(name: str, params: Sequence[Parameter]) -> type[ctypes.Structure]:
    """The packed structure that holds one value of each parameter, in the order of their ids."""
    fields = tuple((param.name, param.platform_type) for param in params)
    return type(name, (ctypes.Structure,), {"_pack_": 1, "_layout_": "ms", "_fields_": fields})


def make_structure(
    name: str,
    params: Sequence[Parameter],
    state: Sequence[tuple[str, Any]],
    counters: Sequence[tuple[str, Any]],
) -> tuple[type[ctypes.Structure], slice]:
    """The structure of a whole segment, and the bytes of it that a transaction may change.

    Args:
        name: The catalog's name of the peripheral.
        params: Its parameters in order of their ids.
        state: Names and C types of further state, which transactions change and take back.
        counters: Names and C types of what only grows.
    """
    block = make_block(f"{name}-block", params)
    tokens = ctypes.c_uint8 * len(params)
    counts = ctypes.c_uint64 * len(params)
    guarded = (("header", Header), *state, ("update", block), ("write", block), ("tokens", tokens))
    inner: Any = type(f"{name}-guarded", (ctypes.Structure,), {"_fields_": guarded})
    changing = slice(Header.pending.offset, inner.tokens.offset + inner.tokens.size)
    shadow = ctypes.c_uint8 * (changing.stop - changing.start)
    fields = (*guarded, ("shadow", shadow), ("received", counts), ("sent", counts), *counters)
    return type(f"{name}-buffer", (BaseStructure,), {"_fields_": fields}), changing


def catalog_hash(name: str, params: Sequence[Parameter], kind: str) -> int:
    """64 bits that differ when any part of a catalog entry that decides on the layout differs."""
    text = repr(
        (
            VERSION,
            kind,
            name,
            [(param.name, _type_text(param), param.readable, param.writeable) for param in params],
        )
    )
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _type_text(param: Parameter) -> str:
    return f"{param.platform_type.__name__}:{ctypes.sizeof(param.platform_type)}"


class Block:
    """The layout of a block, worked out once for each type of buffer.

    Attributes:
        size: Bytes of the block.
    """

    def __init__(self, params: Sequence[Parameter]) -> None:
        self._sizes = [ctypes.sizeof(param.platform_type) for param in params]
        self._offsets = [sum(self._sizes[:index]) for index in range(len(self._sizes))]
        self.size = sum(self._sizes)
        self.slices = functools.lru_cache(maxsize=256)(self._slices)

    def _slices(self, bitmap: int) -> tuple[int, tuple[Slice, ...]]:
        """The length of the data of a message with that bitmap, and the runs that it consists of."""
        runs: list[Slice] = []
        position = 0
        for offset, size in (
            (self._offsets[index], self._sizes[index])
            for index in range(len(self._sizes))
            if bitmap >> index & 1
        ):
            if runs and runs[-1].block + runs[-1].length == offset:
                runs[-1] = runs[-1]._replace(length=runs[-1].length + size)
            else:
                runs.append(Slice(offset, position, size))
            position += size
        return position, tuple(runs)

    def split(self, bitmap: int, limit: int) -> list[int]:
        """The bitmap in parts whose data is each at most ``limit`` bytes."""
        parts: list[int] = []
        part = length = 0
        for index, size in enumerate(self._sizes):
            if not bitmap >> index & 1:
                continue
            if part and length + size > limit:
                parts.append(part)
                part = length = 0
            part |= 1 << index
            length += size
        return [*parts, part] if part else parts
