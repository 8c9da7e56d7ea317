"""The layout of a buffer in memory.

A segment contains a header, the state of the buffer's type, an update block (the newest values of
the device), a write block (the values to send to it) and the fencing tokens of those writes
(`rt.buffer.lease`). Both blocks are packed, in the order of the parameter ids and little-endian,
exactly as on the wire, so a run of neighbouring parameters is one slice of a message.

Everything that a transaction may change is contiguous, from the header's ``pending`` to the end of
the tokens. It is followed by the shadow, room for a copy: a transaction first copies the contents
there, so that the process that recovers the lock of a dead owner can restore them. Counters come
last; no transaction rolls them back.
"""

import ctypes
import hashlib
from collections.abc import Sequence
from typing import Any

from rt.buffer import mutex
from rt.catalog import Parameter
from rt.protocol.uid import BaseStructure

MAGIC = b"rtbuffer"
VERSION = 4


class Header(ctypes.Structure):
    """The beginning of every buffer; 208 bytes.

    ``magic``, ``version``, ``size`` (bytes of the segment) and ``catalog_hash`` identify the
    layout. ``generation`` counts how often an owner has opened the buffer, and ``writer`` is that
    owner's process id. After the mutex, ``valid`` says that the peripheral is connected,
    ``recoveries`` counts dead owners of the lock, ``presence`` counts how often the peripheral came
    or went, and ``watchers`` is the bitmap of the slots to wake at the next change. ``depth`` is
    the number of nested transactions of the lock's owner, and ``journal`` says whether the shadow
    holds the contents from before them.

    A transaction may change the remaining fields: ``pending``, ``updated`` and ``pending_read`` are
    the bitmaps of parameters to write, received, and to read; ``last_update`` is when a value was
    received (s since the epoch), and ``update_stamp`` the same by `rt.buffer.clock` (ns; 0 for
    never).
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


def make_block(name: str, params: Sequence[Parameter]) -> type[ctypes.Structure]:
    """Return the packed structure with one value of each parameter, in the order of their ids."""
    fields = tuple((param.name, param.platform_type) for param in params)
    return type(name, (ctypes.Structure,), {"_pack_": 1, "_layout_": "ms", "_fields_": fields})


def make_structure(
    name: str,
    params: Sequence[Parameter],
    state: Sequence[tuple[str, Any]],
    counters: Sequence[tuple[str, Any]],
) -> tuple[type[ctypes.Structure], slice]:
    """Return the structure of a whole segment, and the bytes that a transaction may change.

    Args:
        name: The catalog's name of the peripheral.
        params: Its parameters in order of their ids.
        state: Names and C types of further state that transactions may change.
        counters: Names and C types of counters.
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
    """Return 64 bits that depend on each part of a catalog entry that determines the layout."""
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
    return f"{param.platform_type.__name__}:{param.size}"


def to_python(value: Any) -> Any:
    """Return a value as given to callers: arrays become new lists."""
    return [to_python(item) for item in value] if isinstance(value, ctypes.Array) else value


def to_array(descriptor: Parameter, value: Any) -> Any:
    """Return the ctypes array with the elements of a sequence.

    Raises:
        TypeError: The value is not a sequence of the right shape.
    """
    try:
        return _fill(descriptor.platform_type, value)
    except (TypeError, IndexError) as error:
        raise TypeError(
            f"{descriptor.name} takes an array of type {descriptor.platform_type.__name__}: {error}"
        ) from None


def _fill(ctype: Any, value: Any) -> Any:
    if not issubclass(ctype, ctypes.Array):
        return value
    items = [_fill(ctype._type_, item) for item in value]
    if len(items) != ctype._length_:
        raise TypeError(f"expected {ctype._length_} elements, not {len(items)}")
    return ctype(*items)
