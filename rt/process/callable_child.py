"""`_child call FD`: the process that runs one Python function, seen from within."""

import importlib
import inspect
import io
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, get_type_hints

import msgspec
import trio

from rt import log
from rt.errors import ProcessStateError
from rt.process import signals
from rt.process.call import CallSettings
from rt.process.exit_status import exit_code
from rt.process.lifeline import Lifeline

_REASON = "received SIGTERM"


def main(lifeline: Lifeline, log_pipe: int | None = None) -> int:
    """Run the function that the lifeline names; the exit code. The kernel kills the whole group when the parent is dead.

    Args:
        lifeline: The child's end of it.
        log_pipe: Where log events go; stdout if None.
    """
    settings = CallSettings.decode(lifeline.read_message())
    lifeline.kill_group_at_eof()
    # Our own entries stay behind those of the parent: an executable finds its libraries by them.
    sys.path[:] = dict.fromkeys([*settings.path, *sys.path])
    log.configure(level=settings.log_level, fmt="json", stream=log_pipe, app=settings.name)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Each line when it is printed: what waits in a buffer is lost when the function is ended
        # where it stands.
        sys.stdout.reconfigure(line_buffering=True)
    try:
        function = load(settings.target)
        args, kwargs = bind(function, settings.args, settings.kwargs)
        result = function(*args, **kwargs)
        # Asked of the result: a decorator or a `__call__` hides that a function is async.
        if inspect.iscoroutine(result):
            _run_async(result)
    except BaseException as error:  # noqa: BLE001 - the end of the process: nobody else would hear of it
        return exit_code(error, "the function failed")
    return 0


def load(target: str) -> Callable[..., Any]:
    """Import what a path of the form ``package.module:function`` names.

    Raises:
        ProcessStateError: It names nothing that can be called.
    """
    module, separator, name = target.partition(":")
    if not (module and separator and name) or module.startswith("."):
        raise ProcessStateError(
            f"{target!r} is no path of a function; write package.module:function", target=target
        )
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports one that is not
        raise ProcessStateError(
            f"{target}: there is no module {error.name}", target=target
        ) from None
    except AttributeError:
        raise ProcessStateError(
            f"{target}: there is no {name} in {module}", target=target
        ) from None
    if not callable(found):
        raise ProcessStateError(
            f"{target} cannot be called: it is {type(found).__name__}", target=target
        )
    function: Callable[..., Any] = found
    return function


def bind(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give plain values the types that a function has written down.

    Raises:
        ProcessStateError: Too few or too many, or one is of another type; the message names it.
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(_annotated(function), include_extras=True)
    except (
        ValueError,
        TypeError,
        NameError,
    ):  # written in C, or annotated with names that do not exist at run time
        return tuple(args), kwargs
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ProcessStateError(f"{name}{signature}: {error}") from None
    for argument, value in bound.arguments.items():
        annotation = hints.get(argument, Any)
        kind = signature.parameters[argument].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[argument] = tuple(
                _convert(name, argument, annotation, each) for each in value
            )
        elif kind is inspect.Parameter.VAR_KEYWORD:
            bound.arguments[argument] = {
                key: _convert(name, key, annotation, each) for key, each in value.items()
            }
        else:
            bound.arguments[argument] = _convert(name, argument, annotation, value)
    return bound.args, bound.kwargs


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose annotations say what may be passed: of a class its `__init__`, of an object its `__call__`."""
    if inspect.isroutine(function):
        return function
    owner, name = (
        (function, "__init__") if isinstance(function, type) else (type(function), "__call__")
    )
    method: Callable[..., Any] = getattr(owner, name)
    return method


def _convert(function: str, argument: str, annotation: Any, value: Any) -> Any:
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise ProcessStateError(
            f"{function}: argument {argument}: {error}", argument=argument
        ) from None
    except (TypeError, NameError) as error:
        raise ProcessStateError(
            f"{function}: argument {argument} is annotated with what no plain value becomes: {error}",
            argument=argument,
        ) from None


def _run_async(coroutine: Awaitable[object]) -> None:
    # Kept outside of the loop: a second signal is then no end in the middle of the first one's.
    with signals.capture_early_signals(signal.SIGTERM) as early:
        trio.run(_until_asked, coroutine, early)


async def _until_asked(coroutine: Awaitable[object], early: list[int]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as received:
        async with trio.open_nursery() as nursery:
            if early:
                nursery.cancel_scope.cancel(_REASON)
            nursery.start_soon(_cancel_at_signal, received, nursery.cancel_scope)
            await coroutine
            nursery.cancel_scope.cancel("the function has returned")


async def _cancel_at_signal(received: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in received:
        scope.cancel(_REASON)
