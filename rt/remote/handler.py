"""What a service can do: methods that are marked as routes, with arguments checked before they run.

The rule of this module: a handler's code only ever sees arguments of the types that it has written
down, and no larger than their bounds (`rt.remote.bounds`). Whoever sent others is told which
argument it was, what came and what is allowed.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar, get_type_hints, overload

import msgspec

from rt.errors import RemoteProtocolError
from rt.protocol import rpc
from rt.remote.bounds import DEFAULT, Bounds, bounded, check, check_raw, is_open
from rt.text import clip, closest, listed, quote

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__rt_route__"

_FAULT_MAX = 200
"""Characters of what msgspec says of a wrong argument; some of its sentences quote the argument."""


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
    """Mark a method of a `Handler` as one that can be called from afar, by its name.

    An `async def` is awaited. A plain `def` runs in a worker thread, because nobody knows how long
    it takes; with `inline=True` it promises to return within microseconds, runs in the event loop
    as soon as its call is read, and so never stands behind calls that take long.

    Args:
        func: The method, when used as a bare decorator.
        inline: Run a plain `def` in the event loop.
        urgent: Start a call before those that wait, however many others run, and finish it although
            its caller has gone or does not wait any more, as for what stops a robot.
        starts: The method starts what an urgent one stops: an urgent call that overtakes a waiting
            call refuses it.
        limit: How long a call may run, in s; `math.inf` for any time. By default the service's
            limit holds, or none for what is urgent.
        bounds: What the arguments may be at most; by default what the handler says.

    Raises:
        TypeError: `inline` on an `async def`.
        ValueError: A limit that is not positive, or one for what runs in the event loop and cannot
            be stopped.
    """

    def mark(method: F) -> F:
        if inline and inspect.iscoroutinefunction(method):
            raise TypeError(f"{method.__qualname__} is async; only a plain def can be inline")
        if limit is not None and (inline or not limit > 0):
            raise ValueError(f"{method.__qualname__} cannot have the limit {limit}")
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
    """One argument as `describe` tells it.

    Attributes:
        name: Its name; with a star before it when any number may follow.
        required: Whether it has to be given.
        schema: Its JSON schema (None: anything).
        type: Its type as written in Python, empty when there is none.
        default: What it is when it is left out, as written in Python; empty when it is required.
    """

    name: str
    required: bool
    schema: dict[str, Any] | None
    type: str = ""
    default: str = ""


class MethodInfo(msgspec.Struct, frozen=True):
    """One method as `describe` tells it.

    Attributes:
        signature: As written in Python, e.g. `ping(uids: str | list[str] | None = None) -> None`.
        doc: Its documentation, empty when there is none.
        arguments: In the order in which they are sent.
        result: JSON schema of what it returns (None: anything).
    """

    signature: str
    doc: str
    arguments: list[ArgumentInfo]
    result: dict[str, Any] | None


class Route:
    """One method that can be called: how, and with what.

    Args:
        name: By which it is called.
        method: The bound method.
        inline: Whether it runs in the event loop although it is a plain `def`.
        urgent: Whether it waits for no other call, and ends although its caller has gone.
        starts: Whether an urgent call that overtakes it refuses it.
        limit: How long a call may run, in s; None leaves that to the service.
        bounds: What its arguments may be at most; None leaves that to the service.

    Raises:
        TypeError: An annotation is of a type that no argument can be checked against, or a keyword
            is required.
        NameError: An annotation names what does not exist.
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
        self._leaves_bounds = bounds is None
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
        self._bound()
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
        self.signature = name + _plainly(str(whole))

    def set_default_bounds(self, bounds: Bounds) -> None:
        """Take over the bounds of a service where neither the route nor its handler has any."""
        if self._leaves_bounds and bounds != self.bounds:
            self.bounds = bounds
            self._bound()

    def _bound(self) -> None:
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
        """Check arguments that came and convert them to the types of the method.

        Raises:
            RemoteProtocolError: Too few or too many came, or one is of another type; the message
                names it.
        """
        most = self.bounds.items if self._rest_name else len(self._positional)
        if not self._required <= len(params) <= most:
            raise RemoteProtocolError(
                f"{self.signature} cannot be called with {len(params)} argument{'s' * (len(params) != 1)}",
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
        """What `describe` tells of this method; takes some hundred microseconds for the schemas."""
        arguments = [
            ArgumentInfo(
                parameter.name,
                parameter.default is parameter.empty,
                _schema(annotation),
                self._written(parameter.name),
                "" if parameter.default is parameter.empty else repr(parameter.default),
            )
            for parameter, annotation in self._positional
        ]
        if self._rest_name:
            written = self._written(self._rest_name.removeprefix("*"))
            arguments.append(ArgumentInfo(self._rest_name, False, _schema(self._rest), written))
        return MethodInfo(
            self.signature, inspect.getdoc(self.method) or "", arguments, _schema(self._result)
        )

    def _written(self, argument: str) -> str:
        return (
            _plainly(inspect.formatannotation(self._plain[argument]))
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
    """Base of what a service serves: the methods marked with `route`, and `describe`.

    >>> class Greeter(Handler):
    ...     @route(inline=True)
    ...     def greet(self, name: str) -> str:
    ...         return f"hello {name}"
    >>> sorted(Greeter().routes())
    ['describe', 'greet']

    Attributes:
        bounds: What the arguments of its routes may be at most, where a route does not say; None
            leaves that to the service.
    """

    bounds: ClassVar[Bounds | None] = None

    def routes(self) -> dict[str, Route]:
        """Name -> route of every marked method, inherited ones included.

        Raises:
            TypeError, NameError: The signature of one cannot be served; see `Route`.
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
        """Tell every method of this service with its signature, documentation, and JSON schema of arguments and result."""
        return {name: each.describe() for name, each in self.routes().items()}


def describe_unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A sentence for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = closest(name, names, cutoff=0.6)
    if near is not None:
        return f"there is no {what} {clip(name)}; did you mean {near}?"
    return f"there is no {what} {clip(name)}" + (f"; there are {listed(names)}" if names else "")


def _plainly(text: str) -> str:
    """Types without the modules that they come from."""
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)


def _check_annotation(name: str, parameter: inspect.Parameter, annotation: Any) -> None:
    if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
        raise TypeError(
            f"{name}: {parameter.name} can only be given by name, but arguments travel by position"
        )
    try:
        msgspec.convert(None, annotation)
    except msgspec.ValidationError:
        return  # the type is understood; None is just none of it


def _schema(annotation: Any) -> dict[str, Any] | None:
    if annotation is Any:
        return None
    try:
        return msgspec.json.schema(annotation)
    except (TypeError, RuntimeError):
        return None
