"""A Python function as a process: the parent's side.

The process is this executable again. It receives the import path of the function and its arguments
on the lifeline, as plain values (MessagePack), and converts them to the annotated types.
`rt.process.callable_child` is the child's side.

The process is never a fork, because a copy of a process with an event loop and sockets cannot use
either.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rt.errors import ProcessStateError
from rt.process.command import CommandProcess
from rt.process.lifeline import MAX_MESSAGE
from rt.process.output import OnLine, log_line
from rt.process.spawn import child_command

ROLE = "call"
"""The role of the child on its command line."""


class CallSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the child, the only message on its lifeline.

    Attributes:
        name: The name in the log.
        target: The import path of the function, as ``package.module:function``.
        args: Positional arguments.
        kwargs: Keyword arguments.
        path: The parent's `sys.path`.
        log_level: The lowest level that is logged.
    """

    name: str
    target: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    path: list[str] = []
    log_level: str = "info"

    def encode(self) -> bytes:
        """Return the message for the lifeline (MessagePack).

        Raises:
            ProcessStateError: An argument is not a plain value, or the message is longer than
                `MAX_MESSAGE`.
        """
        try:
            data = msgspec.msgpack.encode(self)
        except (TypeError, ValueError, OverflowError) as error:
            raise ProcessStateError(
                f"cannot send the arguments of process {self.name}: {error}; pass plain values",
                process=self.name,
            ) from error
        if len(data) > MAX_MESSAGE:
            raise ProcessStateError(
                f"the arguments of process {self.name} take {len(data)} bytes, more than"
                f" {MAX_MESSAGE}; pass the path of a file instead",
                process=self.name,
                size=len(data),
            )
        return data


class CallableProcess(CommandProcess):
    """A process that runs a Python function.

    An async function runs in an event loop, and SIGTERM cancels it. SIGTERM kills a plain function.
    The exit code is:

    - 0 if the function returns;
    - the code of a `SystemExit` if it is between 0 and 255, else 1;
    - the exit code of one of rt's own errors (255 for an emergency stop);
    - 1 for any other exception, which is logged with its traceback.

    stdout is line-buffered.

    Args:
        target: The function, or its import path as ``package.module:function``. Lambdas, nested
            functions and functions of the main script cannot be imported.
        args: Its positional arguments: plain values or msgspec structs, at most 64 KiB together.
            The child checks them against the annotations before the call.
        kwargs: Its keyword arguments.
        name: The name in the log; by default the name of the function.
        cwd: The working directory, or None for the parent's.
        env: Added to the environment, which is inherited.
        on_line: As for `CommandProcess`.
        log_level: The lowest level that is logged.

    Raises:
        ProcessStateError: Another process cannot import the function, or an argument cannot be
            sent.
    """

    def __init__(
        self,
        target: Callable[..., Any] | str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        on_line: OnLine | None = log_line,
        log_level: str = "info",
    ) -> None:
        path = target if isinstance(target, str) else import_path(target)
        name = name or path.rpartition(":")[2]
        settings = CallSettings(
            name=name,
            target=path,
            args=list(args),
            kwargs=dict(kwargs or {}),
            # An empty entry means the working directory, and the child's may be another one.
            path=[str(Path.cwd()) if entry == "" else entry for entry in sys.path],
            log_level=log_level,
        )
        super().__init__(
            child_command(ROLE),
            name=name,
            message=settings.encode(),
            cwd=cwd,
            env=env,
            on_line=on_line,
        )


def import_path(function: Callable[..., Any]) -> str:
    """Return the import path of a function, as ``package.module:function``.

    Raises:
        ProcessStateError: Another process cannot import the function.

    Examples:
        >>> import_path(msgspec.json.schema)
        'msgspec._json_schema:schema'
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise ProcessStateError(
            f"another process cannot import {name or function!r}: use a function that is defined at"
            " the top of a module other than the main script"
        )
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    # Each access creates a new bound method, so two of them are equal but not identical. Only class
    # methods are found by this path.
    if found != function:
        raise ProcessStateError(
            f"{module}:{name} is another object than the function that was passed, so another"
            " process cannot import it"
        )
    return f"{module}:{name}"
