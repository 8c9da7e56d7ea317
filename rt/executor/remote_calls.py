"""Which functions of team code a remote call may execute, and with which arguments.

Invariant: a remote call never executes an imported name, a class, an object or a method, and passes
only plain values that match the function's signature and annotations.
"""

import collections.abc
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from rt.errors import ExecutionError
from rt.executor.stack_frames import is_team_file
from rt.text import clip, quote

_SCALARS = (None, type(None), bool, int, float, str, bytes)
_COLLECTIONS = (
    *(list, tuple, set, frozenset, dict),
    *(collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection),
    *(collections.abc.Mapping, collections.abc.MutableMapping),
)
_REASON_MAX = 200
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def function(names: Mapping[str, Any], name: str, folder: str) -> Callable[..., Any]:
    """Return the function with a name.

    Args:
        names: The names of the main module of the team code.
        name: A key of `names`.
        folder: The folder of the team code.

    Raises:
        ExecutionError: It is not a plain function that is defined in the folder; the message says
            what it is.
    """
    found = names[name]
    refusal = _refusal(name, found, folder)
    if refusal:
        raise ExecutionError(
            f"{clip(name)} cannot be executed: {refusal}; it must be a plain function of your own"
            " files, `def NAME():`",
            func=clip(name),
        )
    return found  # type: ignore[no-any-return] # a function, as `_refusal` has found


def functions(names: Mapping[str, Any], folder: str) -> list[str]:
    """Return the names that `function` accepts."""
    return [name for name, value in names.items() if not _refusal(name, value, folder)]


def arguments(func: Callable[..., Any], name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Check arguments against the signature and annotations of a function, and convert them.

    Converts only as msgspec does in strict mode, for example an int to a float.

    Raises:
        ExecutionError: Their number is wrong, one has another type than annotated, or an annotation
            is not a plain type.
    """
    try:
        signature = inspect.signature(func)
        hints = get_type_hints(func, include_extras=True) if values else {}
    except Exception as error:  # noqa: BLE001 - annotations are team code, which may raise anything
        reason = f"{type(error).__name__}: {clip(str(error), _REASON_MAX)}"
        raise ExecutionError(
            f"{name}: its annotations cannot be read: {reason}", func=name
        ) from None
    try:
        bound = signature.bind(*values)
    except TypeError:
        shown = clip(f"{name}{signature}", _REASON_MAX)
        raise ExecutionError(
            f"{shown} cannot be called with {len(values)} argument{'s' * (len(values) != 1)}",
            func=name,
        ) from None
    taken: list[Any] = []
    for parameter, value in bound.arguments.items():
        many = signature.parameters[parameter].kind is inspect.Parameter.VAR_POSITIONAL
        hint = hints.get(parameter, Any)
        taken += [_converted(name, parameter, each, hint) for each in (value if many else [value])]
    return tuple(taken)


def _refusal(name: str, found: object, folder: str) -> str:
    if name.startswith("_"):
        return "its name begins with an underscore"
    if type(found) is not types.FunctionType:
        return f"it is a {type(found).__name__}"
    if not is_team_file(found.__code__.co_filename, folder):
        return "it is imported from a library"
    if found.__code__.co_name == "<lambda>":
        return "it is a lambda"
    if found.__code__.co_flags & inspect.CO_COROUTINE:
        return "it is async"
    return "it is a generator" if found.__code__.co_flags & _GENERATOR else ""


def _converted(name: str, parameter: str, value: Any, hint: Any) -> Any:
    place = {"func": name, "argument": parameter}
    if not _is_plain(hint):
        raise ExecutionError(
            f"{name}: argument {parameter} is annotated as"
            f" {clip(inspect.formatannotation(hint))}, which a call cannot carry; use bool, int,"
            " float, str, list, dict or a union of them",
            **place,
        )
    try:
        return value if hint in (Any, object) else msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise ExecutionError(
            f"{name}: argument {parameter} came as {quote(value)}: {clip(str(error), _REASON_MAX)}",
            **place,
        ) from None


def _is_plain(hint: Any) -> bool:
    """Return whether values of a type are built without executing team code."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is None:
        return hint in (Any, object, *_SCALARS, *_COLLECTIONS)
    if origin is Annotated:
        return _is_plain(args[0]) and all(isinstance(each, msgspec.Meta) for each in args[1:])
    if origin is Literal:
        return all(isinstance(each, str | int | None) for each in args)
    if origin in (Union, types.UnionType) or origin in _COLLECTIONS:
        return all(each is ... or _is_plain(each) for each in args)
    return False
