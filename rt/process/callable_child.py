"""A Python function as a process: the child's side, `_child call FD`."""

import importlib
import inspect
import io
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

import msgspec
import trio

from rt import log
from rt.errors import ProcessStateError
from rt.process import signals
from rt.process.call import CallSettings
from rt.process.exit_status import exit_code
from rt.process.lifeline import Lifeline
from rt.protocol import structs


def main(lifeline: Lifeline, log_pipe: int | None = None) -> int:
    """Run the function that is named in the settings, and return the exit code.

    The kernel kills the process group when the parent dies.

    Args:
        lifeline: The child's end.
        log_pipe: Receives log events; stdout if None.
    """
    settings: CallSettings = structs.decode(lifeline.read_message(), CallSettings)
    lifeline.kill_group_at_eof()
    # This process's entries are kept after those of the parent: a one-file executable needs them
    # for its libraries.
    sys.path[:] = dict.fromkeys([*settings.path, *sys.path])
    log.configure(level=settings.log_level, fmt="json", stream=log_pipe, app=settings.name)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # SIGTERM kills a plain function, and a block buffer would be lost then.
        sys.stdout.reconfigure(line_buffering=True)
    try:
        function = load(settings.target)
        args, kwargs = bind(function, settings.args, settings.kwargs)
        result = function(*args, **kwargs)
        # Examine the result: a decorator or a `__call__` hides that a function is async.
        if inspect.iscoroutine(result):
            _run_async(result)
    except BaseException as error:  # noqa: BLE001 - the process ends here
        return exit_code(error, "function failed")
    return 0


def load(target: str) -> Callable[..., Any]:
    """Import a function by a path of the form ``package.module:function``.

    Raises:
        ProcessStateError: The path does not name a callable.
    """
    module, separator, name = target.partition(":")
    if not (module and separator and name) or module.startswith("."):
        raise ProcessStateError(
            f"invalid function path {target!r}: expected package.module:function", target=target
        )
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, and imports one that does not
        raise ProcessStateError(f"{target}: no module named {error.name}", target=target) from None
    except AttributeError:
        raise ProcessStateError(
            f"{target}: module {module} has no attribute {name}", target=target
        ) from None
    if not callable(found):
        raise ProcessStateError(
            f"{target}: expected a callable, got {type(found).__name__}", target=target
        )
    function: Callable[..., Any] = found
    return function


def bind(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert plain values to the annotated types of a function.

    Returns:
        The positional and the keyword arguments.

    Raises:
        ProcessStateError: An argument is missing, superfluous or of another type; the message names
            it.
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(_annotated(function), include_extras=True)
    except (ValueError, TypeError, NameError):
        # Implemented in C, or annotated with names that do not exist at run time.
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
    """Return the function with the annotations: `__init__` of a class, `__call__` of an object."""
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
            f"{function}: argument {argument} has an annotation without a plain form: {error}",
            argument=argument,
        ) from None


def _run_async(coroutine: Awaitable[object]) -> None:
    # Outside of the event loop, so that a second SIGTERM does not kill the process while it stops.
    with signals.capture_early_signals(signal.SIGTERM) as early:
        trio.run(_run_until_sigterm, coroutine, early)


async def _run_until_sigterm(coroutine: Awaitable[object], early: list[int]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_sigterm, nursery.cancel_scope, early)
        await coroutine
        nursery.cancel_scope.cancel("the function has returned")


async def _cancel_at_sigterm(scope: trio.CancelScope, early: list[int]) -> None:
    scope.cancel(f"received {await signals.wait(signal.SIGTERM, early=early)}")
