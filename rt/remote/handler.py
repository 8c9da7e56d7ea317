"""Handlers: classes whose methods a service exposes as routes, with checked arguments.

Invariant: a handler's method receives only arguments of its annotated types and within its bounds
(`rt.remote.bounds`). A caller that sends others gets an error that names the argument, its value
and what was expected.
"""

import inspect
import itertools
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


class RouteOptions(msgspec.Struct, frozen=True):
    """The options of a route; see `route`."""

    inline: bool = False
    urgent: bool = False
    starts: bool = False
    limit: float | None = None
    bounds: Bounds | None = None


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
        setattr(method, _MARK, RouteOptions(inline, urgent, starts, limit, bounds))
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
        options: A limit or bounds of None mean those of the service.

    Raises:
        TypeError: msgspec does not support an annotation, or a keyword-only argument is required.
        NameError: An annotation names something undefined.
    """

    def __init__(self, name: str, method: Callable[..., Any], options: RouteOptions) -> None:
        self.name = name
        self.method = method
        self.inline = options.inline
        self.urgent = options.urgent
        self.starts = options.starts
        self.limit = options.limit
        self.bounds = options.bounds or DEFAULT
        self.is_async = inspect.iscoroutinefunction(method)
        self._uses_default_bounds = options.bounds is None
        self._hints = get_type_hints(method, include_extras=True)
        self._plain = get_type_hints(method)
        signature = inspect.signature(method)
        for each in signature.parameters.values():
            _check_annotation(name, each, self._hints.get(each.name, Any))
        self._parameters = [
            each
            for each in signature.parameters.values()
            if each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD)
        ]
        positional = [each for each in self._parameters if each.kind is not each.VAR_POSITIONAL]
        self._names = [each.name for each in positional]
        self._rest = "".join(each.name for each in self._parameters if each not in positional)
        self._required = sum(each.default is each.empty for each in positional)
        self._open = {
            each.name for each in self._parameters if is_open(self._hints.get(each.name, Any))
        }
        self._apply_bounds()
        returned = self._plain.get("return", signature.empty)
        shown = signature.replace(
            parameters=[
                each.replace(annotation=self._plain.get(each.name, each.empty))
                for each in signature.parameters.values()
            ],
            return_annotation=None if returned is type(None) else returned,
        )
        self.signature = name + _without_modules(str(shown))

    def set_default_bounds(self, bounds: Bounds) -> None:
        """Set the service's bounds, unless the route or its handler has bounds of its own."""
        if self._uses_default_bounds and bounds != self.bounds:
            self.bounds = bounds
            self._apply_bounds()

    def _apply_bounds(self) -> None:
        self._types = {name: bounded(hint, self.bounds) for name, hint in self._hints.items()}

    def bind(self, params: Sequence[Any]) -> list[Any]:
        """Check received arguments and convert them to the annotated types.

        Raises:
            RemoteProtocolError: The number of arguments is wrong, or an argument is invalid; the
                message names the argument.
        """
        most = self.bounds.items if self._rest else len(self._names)
        if not self._required <= len(params) <= most:
            raise RemoteProtocolError(
                f"{self.signature} cannot be called with "
                f"{len(params)} argument{'s' * (len(params) != 1)}",
                method=self.name,
                signature=self.signature,
            )
        names = itertools.chain(self._names, itertools.repeat(self._rest))
        return [self._convert(name, value) for value, name in zip(params, names, strict=False)]

    def describe(self) -> MethodInfo:
        """Return the description of this method; generating the schemas takes about 0.3 ms."""
        return MethodInfo(
            self.signature,
            inspect.getdoc(self.method) or "",
            [self._describe_argument(each) for each in self._parameters],
            _schema(self._hints.get("return", Any)),
        )

    def _describe_argument(self, parameter: inspect.Parameter) -> ArgumentInfo:
        name = parameter.name
        has_default = parameter.default is not parameter.empty
        return ArgumentInfo(
            self._shown(name),
            required=not has_default and name != self._rest,
            schema=_schema(self._types.get(name, Any)),
            type=_without_modules(inspect.formatannotation(self._plain[name]))
            if name in self._plain
            else "",
            default=repr(parameter.default) if has_default else "",
        )

    def _shown(self, argument: str) -> str:
        return f"*{argument}" if argument == self._rest else argument

    def _convert(self, argument: str, value: Any) -> Any:
        annotation = self._types.get(argument, Any)
        raw = value if isinstance(value, msgspec.Raw) else None
        walks = argument in self._open
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
            name = self._shown(argument)
            shown = quote(value) if raw is None else f"{len(memoryview(raw))} bytes"
            raise RemoteProtocolError(
                f"{self.name}: argument {name} came as {shown}: {clip(str(error), _FAULT_MAX)}",
                method=self.name,
                argument=name,
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
                options = msgspec.structs.replace(mark, bounds=mark.bounds or self.bounds)
                found[name] = Route(name, getattr(self, name), options)
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
