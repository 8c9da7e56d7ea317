"""Size limits of call arguments, and their translation into type annotations.

Invariant: every size is checked before the value is used. The size of a message is checked before
the message is decoded, the length of an array or string before its elements are converted, and an
untyped argument is walked once.
"""

import functools
import operator
import types
from collections.abc import Collection, Mapping
from typing import Annotated, Any, TypeAlias, Union, cast, get_args, get_origin

import msgspec

from rt.errors import RemoteProtocolError
from rt.protocol import rpc

_Key: TypeAlias = str | int | float | bool | None


class Bounds(msgspec.Struct, frozen=True):
    """Maximum sizes of the arguments of one call.

    An annotation with `msgspec.Meta(max_length=...)` overrides `text` or `items`.

    Attributes:
        message: Size of the whole message, in bytes.
        text: Length of a string, in characters.
        items: Number of elements of an array or map, and of arguments of a call.
        depth: Nesting depth of arrays and maps.
        values: Number of values in an untyped argument.
    """

    message: int = 1 << 16
    text: int = 256
    items: int = 1024
    depth: int = 8
    values: int = 4096


DEFAULT = Bounds()
"""Bounds for calls through a router, unless the route or its handler sets others."""

UNROUTED = Bounds(
    message=rpc.MAX_MESSAGE,
    text=rpc.MAX_MESSAGE,
    items=rpc.MAX_MESSAGE,
    depth=64,
    values=rpc.MAX_MESSAGE,
)
"""Bounds for services without a router, which receive the robot's own log events and updates.

They allow everything that fits in a message.
"""


def bounded(annotation: Any, bounds: Bounds) -> Any:
    """Return the type annotated with length limits, which msgspec checks before it converts.

    Structs are returned unchanged: their fields declare their own limits.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is str:
        return Annotated[str, msgspec.Meta(max_length=bounds.text)]
    if origin is Annotated:
        inner, *rest = args
        if any(isinstance(each, msgspec.Meta) and each.max_length is not None for each in rest):
            return Annotated[(_of_elements(inner, bounds), *rest)]
        return Annotated[(bounded(inner, bounds), *rest)]
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, (bounded(each, bounds) for each in args))
    kind = origin or annotation
    if (
        isinstance(kind, type)
        and issubclass(kind, Collection)
        and not issubclass(kind, bytes | bytearray | memoryview)
    ):
        inner = _of_elements(annotation, bounds)
        fixed = kind is tuple and args and args[-1] is not ...
        return inner if fixed else Annotated[inner, msgspec.Meta(max_length=bounds.items)]
    return annotation


def is_open(annotation: Any) -> bool:
    """Return whether a type admits values of arbitrary structure, which `check` has to walk."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in (None, type(None), bool, int, float, str, bytes):
        return False
    if origin is Annotated:
        return is_open(args[0])
    if origin in (Union, types.UnionType) or (
        isinstance(origin, type) and issubclass(origin, Collection)
    ):
        return any(is_open(each) for each in args if each is not ...)
    return not (
        args and all(isinstance(each, str | int | None) for each in args)
    )  # a Literal is closed


def check(value: object, bounds: Bounds) -> None:
    """Check an untyped value against bounds.

    Raises:
        RemoteProtocolError: The value exceeds a bound; the message names the bound.
    """
    seen = 0
    level: list[object] = [value]
    for depth in range(bounds.depth + 1):
        inner: list[object] = []
        for each in level:
            if isinstance(each, str) and len(each) > bounds.text:
                raise RemoteProtocolError(
                    f"a string has {len(each)} characters; at most {bounds.text} are accepted"
                )
            if isinstance(each, Mapping | list | tuple):
                if len(each) > bounds.items:
                    raise RemoteProtocolError(
                        f"an array or map has {len(each)} items; "
                        f"at most {bounds.items} are accepted"
                    )
                if depth == bounds.depth:
                    raise RemoteProtocolError(
                        f"arrays and maps are nested more than {bounds.depth} deep"
                    )
                inner.extend(each)
                if isinstance(each, Mapping):
                    inner.extend(each.values())
                if seen + len(inner) > bounds.values:
                    raise RemoteProtocolError(
                        f"too many values; at most {bounds.values} are accepted"
                    )
        if not inner:
            return
        seen += len(inner)
        level = inner


def check_raw(data: msgspec.Raw, bounds: Bounds) -> None:
    """Check an encoded untyped argument before it is decoded.

    Decoding a few kilobytes of empty arrays takes milliseconds.

    Raises:
        RemoteProtocolError: The argument has too many values, is nested too deeply, or is not
            MessagePack.
        msgspec.ValidationError: An array or map is too long, or a key of a map is not a scalar.
    """
    array = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=bounds.items)]
    table = Annotated[dict[_Key, msgspec.Raw], msgspec.Meta(max_length=bounds.items)]
    left = bounds.values
    level = [data]
    for depth in range(bounds.depth + 1):
        inner: list[msgspec.Raw] = []
        for each in level:
            head = memoryview(each)[0]
            if head & 0xF0 == 0x90 or head in {0xDC, 0xDD}:
                inner.extend(rpc.decode_argument(each, array))
            elif head & 0xF0 == 0x80 or head in {0xDE, 0xDF}:
                inner.extend(rpc.decode_argument(each, table).values())
            else:
                continue
            if depth == bounds.depth:
                raise RemoteProtocolError(
                    f"arrays and maps are nested more than {bounds.depth} deep"
                )
            if len(inner) > left:
                raise RemoteProtocolError(f"too many values; at most {bounds.values} are accepted")
        if not inner:
            return
        left -= len(inner)
        level = inner


def _of_elements(annotation: Any, bounds: Bounds) -> Any:
    """Return the collection type with bounds on its elements, not on its own length."""
    origin, args = get_origin(annotation), get_args(annotation)
    if not args or not isinstance(origin, type) or not issubclass(origin, Collection):
        return annotation
    return cast(Any, origin)[tuple(each if each is ... else bounded(each, bounds) for each in args)]
