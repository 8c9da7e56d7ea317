"""Handlers: classes whose methods a service exposes as routes, with checked arguments.

Invariant: a handler's method receives only arguments of its annotated types and within its bounds
(`rt.remote.bounds`). A caller that sends others gets an error that names the argument, its value
and what was expected.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar, get_type_hints, overload

import msgspec

from rt.errors import RemoteProtocolError
from rt.protocol import rpc
from rt.remote.bounds import DEFAULT, Bounds, bounded, check, check_raw, is_open
from rt.text import clip, listed, nearest, quote

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__rt_route__"

_FAULT_MAX = 200
"""Maximum length of msgspec's description of an invalid argument, which may quote the argument."""


@overload
def route(func: F, /) -> F: ...
@overload
def route(
    *,
    inline: bool = ...,
    urgent: bool = ...,
    starts: bool = ...,
    limit: float | None = ...,
    bounds: Bounds | None = ...,
) -> Callable[[F], F]: ...
def route(
    func: F | None = None,
    /,
    *,
    inline: bool = False,
    urgent: bool = False,
    starts: bool = False,
    limit: float | None = None,
    bounds: Bounds | None = None,
) -> F | Callable[[F], F]:
    """Mark a method of a `Handler` as remotely callable under its own name.

    An `async def` is awaited. A plain `def` runs in a worker thread, because it may block. With
    `inline=True` it runs in the event loop as soon as its call is read, ahead of slow calls; it
    must return within microseconds.

    Args:
        func: The method, when used as a bare decorator.
        inline: Run a plain `def` in the event loop.
        urgent: Start calls ahead of all waiting ones regardless of the concurrency limit, and
            complete them even if the caller cancels or disconnects. For methods that stop a robot.
        starts: The method starts what an urgent method stops. An urgent call refuses all calls of
            such methods that wait.
        limit: Time limit of a call, in s; `math.inf` for none. The default is the service's limit,
            and none for an urgent method.
        bounds: Bounds of the arguments; by default those of the handler.

    Raises:
        TypeError: `inline` is set on an `async def`.
        ValueError: The limit is not positive, or is set on an inline method, which cannot be
            stopped.
    """

    def mark(method: F) -> F:
        if inline and inspect.iscoroutinefunction(method):
            raise TypeError(f"{method.__qualname__} is async; only a plain def can be inline")
        if limit is not None and (inline or not limit > 0):
            raise ValueError(
                f"{method.__qualname__}: invalid limit {limit}; "
                "use a positive number, and none for an inline method"
            )
        setattr(
            method,
            _MARK,
            {
                "inline": inline,
                "urgent": urgent,
                "starts": starts,
                "limit": limit,
                "bounds": bounds,
            },
        )
        return method

    return mark if func is None else mark(func)


class ArgumentInfo(msgspec.Struct, frozen=True):
    """Description of one argument, as returned by `describe`.

    Attributes:
        name: Name, with a leading star if any number of values may follow.
        required: Whether the argument is required.
        schema: JSON schema (None: any value).
        type: Python annotation; empty if there is none.
        default: Python expression of the default; empty if the argument is required.
    """

    name: str
    required: bool
    schema: dict[str, Any] | None
    type: str = ""
    default: str = ""


class MethodInfo(msgspec.Struct, frozen=True):
    """Description of one method, as returned by `describe`.

    Attributes:
        signature: Python signature, e.g. `ping(uids: str | list[str] | None = None) -> None`.
        doc: Docstring; empty if there is none.
        arguments: Arguments in the order in which they are sent.
        result: JSON schema of the result (None: any value).
    """

    signature: str
    doc: str
    arguments: list[ArgumentInfo]
    result: dict[str, Any] | None


class Route:
    """A remotely callable method with its argument types and options.

    Args:
        name: Name by which it is called.
        method: The bound method.
        inline: Whether a plain `def` runs in the event loop.
        urgent: Whether calls start ahead of others and complete without their caller.
        starts: Whether an urgent call refuses waiting calls of this method.
        limit: Time limit of a call, in s; None uses the service's.
        bounds: Bounds of the arguments; None uses the service's.

    Raises:
        TypeError: msgspec does not support an annotation, or a keyword-only argument is required.
        NameError: An annotation names something undefined.
    """

    def __init__(
        self,
        name: str,
        method: Callable[..., Any],
        *,
        inline: bool,
        urgent: bool = False,
        starts: bool = False,
        limit: float | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.name = name
        self.limit = limit
        self.urgent = urgent
        self.starts = starts
        self.bounds = bounds or DEFAULT
        self._uses_default_bounds = bounds is None
        self.method = method
        self.inline = inline
        self.is_async = inspect.iscoroutinefunction(method)
        hints = get_type_hints(method, include_extras=True)
        plain = get_type_hints(method)
        signature = inspect.signature(method)
        self._positional: list[tuple[inspect.Parameter, Any]] = []
        self._rest: Any = None
        self._rest_name = ""
        self._hints = hints
        for parameter in signature.parameters.values():
            annotation = hints.get(parameter.name, Any)
            _check_annotation(name, parameter, annotation)
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                self._positional.append((parameter, annotation))
            elif parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = annotation
                self._rest_name = f"*{parameter.name}"
        self._apply_bounds()
        self._required = sum(
            parameter.default is parameter.empty for parameter, _ in self._positional
        )
        self._result = hints.get("return", Any)
        self._plain = plain
        shown = [
            each.replace(annotation=plain.get(each.name, each.empty))
            for each in signature.parameters.values()
        ]
        returned = plain.get("return", signature.empty)
        whole = signature.replace(
            parameters=shown, return_annotation=None if returned is type(None) else returned
        )
        self.signature = name + _without_modules(str(whole))

    def set_default_bounds(self, bounds: Bounds) -> None:
        """Set the service's bounds, unless the route or its handler has bounds of its own."""
        if self._uses_default_bounds and bounds != self.bounds:
            self.bounds = bounds
            self._apply_bounds()

    def _apply_bounds(self) -> None:
        types = {name: bounded(annotation, self.bounds) for name, annotation in self._hints.items()}
        self._positional = [(each, types.get(each.name, Any)) for each, _ in self._positional]
        if self._rest_name:
            self._rest = types.get(self._rest_name.removeprefix("*"), Any)
        self._open = {
            name
            for name in [
                *(each.name for each, _ in self._positional),
                self._rest_name.removeprefix("*"),
            ]
            if is_open(self._hints.get(name, Any))
        }

    def bind(self, params: Sequence[Any]) -> list[Any]:
        """Check received arguments and convert them to the annotated types.

        Raises:
            RemoteProtocolError: The number of arguments is wrong, or an argument is invalid; the
                message names the argument.
        """
        most = self.bounds.items if self._rest_name else len(self._positional)
        if not self._required <= len(params) <= most:
            raise RemoteProtocolError(
                f"{self.signature} cannot be called with "
                f"{len(params)} argument{'s' * (len(params) != 1)}",
                method=self.name,
                signature=self.signature,
            )
        args = [
            self._convert(parameter.name, annotation, value)
            for (parameter, annotation), value in zip(self._positional, params, strict=False)
        ]
        args += [
            self._convert(self._rest_name, self._rest, value)
            for value in params[len(self._positional) :]
        ]
        return args

    def describe(self) -> MethodInfo:
        """Return the description of this method; generating the schemas takes about 0.3 ms."""
        arguments = [
            ArgumentInfo(
                parameter.name,
                parameter.default is parameter.empty,
                _schema(annotation),
                self._annotation_text(parameter.name),
                "" if parameter.default is parameter.empty else repr(parameter.default),
            )
            for parameter, annotation in self._positional
        ]
        if self._rest_name:
            text = self._annotation_text(self._rest_name.removeprefix("*"))
            arguments.append(ArgumentInfo(self._rest_name, False, _schema(self._rest), text))
        return MethodInfo(
            self.signature, inspect.getdoc(self.method) or "", arguments, _schema(self._result)
        )

    def _annotation_text(self, argument: str) -> str:
        return (
            _without_modules(inspect.formatannotation(self._plain[argument]))
            if argument in self._plain
            else ""
        )

    def _convert(self, argument: str, annotation: Any, value: Any) -> Any:
        raw = value if isinstance(value, msgspec.Raw) else None
        walks = argument.removeprefix("*") in self._open
        try:
            if raw is not None and walks:
                check_raw(raw, self.bounds)
            if raw is not None:
                value = rpc.decode_argument(raw, Any if walks else annotation)
            if walks:
                check(value, self.bounds)
            return (
                value
                if annotation is Any or (raw is not None and not walks)
                else msgspec.convert(value, annotation)
            )
        except (msgspec.ValidationError, RemoteProtocolError) as error:
            shown = quote(value) if raw is None else f"{len(memoryview(raw))} bytes"
            raise RemoteProtocolError(
                f"{self.name}: argument {argument} came as {shown}: {clip(str(error), _FAULT_MAX)}",
                method=self.name,
                argument=argument,
                signature=self.signature,
            ) from error


class Handler:
    """Base class of handlers: exposes the methods marked with `route`, and `describe`.

    >>> class Greeter(Handler):
    ...     @route(inline=True)
    ...     def greet(self, name: str) -> str:
    ...         return f"hello {name}"
    >>> sorted(Greeter().routes())
    ['describe', 'greet']

    Attributes:
        bounds: Default bounds of the routes' arguments; None uses the service's.
    """

    bounds: ClassVar[Bounds | None] = None

    def routes(self) -> dict[str, Route]:
        """Return the route of each marked method by name, including inherited methods.

        Raises:
            TypeError, NameError: A signature is not supported; see `Route`.
        """
        found = {}
        for name in dir(type(self)):
            mark = getattr(inspect.getattr_static(type(self), name), _MARK, None)
            if mark is not None:
                found[name] = Route(
                    name, getattr(self, name), **{**mark, "bounds": mark["bounds"] or self.bounds}
                )
        return found

    @route
    def describe(self) -> dict[str, MethodInfo]:
        """Return signature, documentation and JSON schemas of each method of this service."""
        return {name: each.describe() for name, each in self.routes().items()}


def describe_unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return an error message for an unknown name, with the nearest known one."""
    names = sorted(known)
    hint = nearest(name, names, cutoff=0.6) or (f"; there are {listed(names)}" if names else "")
    return f"there is no {what} {clip(name)}{hint}"


def _without_modules(text: str) -> str:
    """Return an annotation without module prefixes."""
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)


def _check_annotation(name: str, parameter: inspect.Parameter, annotation: Any) -> None:
    if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
        raise TypeError(
            f"{name}: argument {parameter.name} is keyword-only and required, "
            "but arguments are sent by position"
        )
    try:
        msgspec.convert(None, annotation)
    except msgspec.ValidationError:
        return  # a supported type that does not include None


def _schema(annotation: Any) -> dict[str, Any] | None:
    if annotation is Any:
        return None
    try:
        return msgspec.json.schema(annotation)
    except (TypeError, RuntimeError):
        return None
