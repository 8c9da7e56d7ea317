"""Starts the linter's process and bounds it: nobody waits for longer than the limit, whatever the program is.

The rule of this module: the caller's event loop never waits, and no process outlives the call.
"""

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import trio

from rt.errors import ExecutionError, RemoteProtocolError
from rt.instance.stale_files import ENV_DIRECTORY
from rt.lint.child import Answer, failure_record
from rt.lint.record import Record
from rt.lint.request import LintRequest
from rt.process.spawn import child_command, spawn
from rt.protocol import structs

LIMIT = 5.0
"""How long linting may take (s); the process is killed then."""
_MAX_OUTPUT = 4 << 20
_LATER = "the code is very long, or the computer is busy; try again, or split the file"
_AGAIN = "try again; if it happens each time, it is a fault of rt"


async def run_lint(
    request: LintRequest,
    *,
    limit: float = LIMIT,
    instance_directory: Path | None = None,
    command: Sequence[str] | None = None,
) -> list[Record]:
    """Lint in a process of its own.

    A cancel kills the process.

    Args:
        request: What is to be linted.
        limit: How long it may take, the process's start included (s).
        instance_directory: The robot's that wants to know, so that the process is known as one of
            that robot.
        command: What to start instead of this executable; see `rt.process.spawn.spawn`.

    Returns:
        The records; a process that had to be killed, or crashed, is one record.

    Raises:
        ExecutionError: There is nothing to lint, or no process could be made.
    """
    with trio.move_on_after(limit):
        code, output = await _run(
            command or child_command("lint"), request.encode(), instance_directory
        )
        try:
            answer: Answer = structs.decode(output, Answer)
        except RemoteProtocolError:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            return [
                failure_record(
                    request, "lint-crashed", "RT909", f"the linter's process ended {how}: {_AGAIN}"
                )
            ]
        if answer.error:
            raise ExecutionError(answer.error, **answer.context)
        return answer.records
    return [
        failure_record(
            request,
            "lint-timeout",
            "RT908",
            f"linting took longer than {limit:g} s and was ended: {_LATER}",
        )
    ]


async def _run(
    command: Sequence[str], message: bytes, instance_directory: Path | None
) -> tuple[int, bytes]:
    """The exit code and the output of a process that is killed when this is cancelled."""
    env = {} if instance_directory is None else {ENV_DIRECTORY: os.fspath(instance_directory)}
    with contextlib.ExitStack() as stack:
        try:
            process, _ = await spawn(
                command, stack, message=message, env=env, stderr=subprocess.DEVNULL, log_pipe=False
            )
        except OSError as error:
            raise ExecutionError(f"cannot start the linter's process: {error.strerror}") from None
        assert process.stdout is not None
        output = bytearray()
        try:
            async with process.stdout:
                async for chunk in process.stdout:
                    output += chunk
                    if len(output) > _MAX_OUTPUT:
                        break
            if len(output) <= _MAX_OUTPUT:
                await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with trio.CancelScope(shield=True):  # killed, so that this is soon over
                await process.wait()
        assert process.returncode is not None
        return process.returncode, bytes(output)
