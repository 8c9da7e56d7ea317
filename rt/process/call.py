"""A Python function as a process: this executable again, with the function's import path and its arguments on the lifeline.

Never a fork: a copy of a process with an event loop and sockets has broken halves of both. So
nothing is shared with the parent but what is passed, and what is passed is plain values
(MessagePack), which the function's annotations turn into its own types again.
`rt.process.callable_child` is the other end.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from rt.errors import ProcessStateError
from rt.process.command import CommandProcess
from rt.process.lifeline import MAX_MESSAGE
from rt.process.output import OnLine, log_line
from rt.process.spawn import child_command
from rt.protocol import structs

ROLE = "call"
"""What such a child is called on its command line."""


class CallSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the child needs to know; the one message on its lifeline.

    Attributes:
        name: What it is called in the log.
        target: The import path of the function, as ``package.module:function``.
        args: Positional arguments.
        kwargs: Arguments by name.
        path: Where modules are looked for, as `sys.path`.
        log_level: The least severity that it logs.
    """

    name: str
    target: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    path: list[str] = []
    log_level: str = "info"

    def encode(self) -> bytes:
        """The message for the lifeline (MessagePack).

        Raises:
            ProcessStateError: An argument is no plain value, or they are longer than a lifeline
                takes.
        """
        try:
            data = msgspec.msgpack.encode(self)
        except (TypeError, ValueError, OverflowError) as error:
            raise ProcessStateError(
                f"the arguments of process {self.name} cannot be sent: {error}; pass plain values",
                process=self.name,
            ) from error
        if len(data) > MAX_MESSAGE:
            raise ProcessStateError(
                f"the arguments of process {self.name} take {len(data)} bytes, more than {MAX_MESSAGE}; pass where they can be"
                " read, as the path of a file",
                process=self.name,
                size=len(data),
            )
        return data

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """The settings that a message carries.

        Raises:
            RemoteProtocolError: It is no such message.
        """
        return structs.decode(message, cls)


class CallableProcess(CommandProcess):
    """A process with a Python function as its entry point.

    The exit code is 0 when the function returns, N when it raises `SystemExit` with an N below 256
    (1 with any other number), that of the error for rt's own errors (255 for an emergency stop),
    and 1 for any other exception, which goes to the log with its traceback. An ``async def`` runs
    on an event loop of its own, and SIGTERM cancels it; a plain function is ended by SIGTERM where
    it stands. What it prints comes line by line.

    Args:
        target: The function, or its import path as ``package.module:function``. It has to be
            importable by that path: a lambda, a function within another one, and one of the main
            script are not.
        args: Its positional arguments, plain values or msgspec structs; at most 64 KiB together.
            They are checked against its annotations in the child before it runs.
        kwargs: Its arguments by name.
        name: What it is called in the log; by default the name of the function.
        cwd: Where it starts, or None for where we are.
        env: Added to our environment, which it inherits.
        on_line: As for `CommandProcess`.
        log_level: The least severity that it logs.

    Raises:
        ProcessStateError: The function cannot be imported by another process, or an argument cannot
            be sent.
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
            # An empty entry means the working directory of whoever looks.
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
    """The import path of a function, as ``package.module:function``.

    Raises:
        ProcessStateError: No other process finds it there.

    Examples:
        >>> path_of(msgspec.json.schema)
        'msgspec._json_schema:schema'
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise ProcessStateError(
            f"{name or function!r} cannot be run in another process: only a function that stands by its name in a module"
            " that can be imported can be, and the main script is none"
        )
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    # Bound methods are made anew each time, so they are equal rather than the same; only those of
    # classes lead back here.
    if found != function:
        raise ProcessStateError(
            f"{module}:{name} is not what was given; another process would not find it there"
        )
    return f"{module}:{name}"
