"""Bounds of what a call may carry, and how they become part of a method's types.

Invariant: no argument is looked at whose size is not bounded. The size of a message is checked
before it is decoded, the length of an array or a text before its elements are converted, and what a
method takes as anything is walked once.
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
    """What the arguments of one call may be at most. An annotation with `msgspec.Meta(max_length=...)` overrides a length.

    Attributes:
        message: Bytes of the whole message.
        text: Characters of a text.
        items: Elements of an array or a map, and arguments of a call.
        depth: Arrays and maps within one another.
        values: Values in an argument that may be anything.
    """

    message: int = 1 << 16
    text: int = 256
    items: int = 1024
    depth: int = 8
    values: int = 4096


DEFAULT = Bounds()
"""What holds for calls that a router carries, where neither the route nor its handler says otherwise."""

UNROUTED = Bounds(
    message=rpc.MAX_MESSAGE,
    text=rpc.MAX_MESSAGE,
    items=rpc.MAX_MESSAGE,
    depth=64,
    values=rpc.MAX_MESSAGE,
)
"""What holds without a router, where the robot's own log events and updates come in: all that a message can carry."""


def bounded(annotation: Any, bounds: Bounds) -> Any:
    """Return the same type with the bounds in it, so that a conversion checks them first.

    Structures stay as they are: their fields declare their own bounds.
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
    """Whether values of a type are not wholly described by the type, so that they have to be walked."""
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
    """Check a value that may be anything against bounds.

    Raises:
        RemoteProtocolError: It exceeds one of them; the message says which.
    """
    seen = 0
    level: list[object] = [value]
    for depth in range(bounds.depth + 1):
        inner: list[object] = []
        for each in level:
            if isinstance(each, str) and len(each) > bounds.text:
                raise RemoteProtocolError(
                    f"a text of {len(each)} characters; at most {bounds.text} are accepted"
                )
            if isinstance(each, Mapping | list | tuple):
                if len(each) > bounds.items:
                    raise RemoteProtocolError(
                        f"an array or map of {len(each)}; at most {bounds.items} are accepted"
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
    """Check an argument that may be anything before it is built: a few kilobytes of empty arrays take milliseconds to build.

    Raises:
        RemoteProtocolError: It has too many values, they are nested too deep, or it is no
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
    """Return the type of a collection with bounds in the types of its elements only."""
    origin, args = get_origin(annotation), get_args(annotation)
    if not args or not isinstance(origin, type) or not issubclass(origin, Collection):
        return annotation
    return cast(Any, origin)[tuple(each if each is ... else bounded(each, bounds) for each in args)]
