"""Runs the linter in a process of its own, within limits of time and output.

Invariant: the caller's event loop is never blocked, and no process outlives the call.
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
"""How long linting may take, in s; then the process is killed."""
_MAX_OUTPUT = 4 << 20
_RETRY = "try again; if it happens every time, it is a bug in rt"


async def run_lint(
    request: LintRequest,
    *,
    limit: float = LIMIT,
    instance_directory: Path | None = None,
    command: Sequence[str] | None = None,
) -> list[Record]:
    """Lint in a process of its own; a cancel kills the process.

    Args:
        request: What to lint.
        limit: How long it may take, including the start of the process, in s.
        instance_directory: The directory of the calling robot's instance, so that the process
            counts as one of its processes.
        command: The command to start instead of this executable; see `rt.process.spawn.spawn`.

    Returns:
        The records. A process that was killed or has crashed is one record.

    Raises:
        ExecutionError: There is nothing to lint, or the process cannot be started.
    """
    with trio.move_on_after(limit):
        code, output = await _run(
            command or child_command("lint"), request.encode(), instance_directory
        )
        try:
            answer: Answer = structs.decode(output, Answer)
        except RemoteProtocolError:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            message = f"the linter process exited {how}: {_RETRY}"
            return [failure_record(request, "lint-crashed", "RT909", message)]
        if answer.error:
            raise ExecutionError(answer.error, **answer.context)
        return answer.records
    message = (
        f"linting took longer than {limit:g} s: the code is very long, or the computer is busy;"
        " try again, or split the file"
    )
    return [failure_record(request, "lint-timeout", "RT908", message)]


async def _run(
    command: Sequence[str], message: bytes, instance_directory: Path | None
) -> tuple[int, bytes]:
    """Return the exit code and the output of a process; a cancel kills it."""
    env = {} if instance_directory is None else {ENV_DIRECTORY: os.fspath(instance_directory)}
    with contextlib.ExitStack() as stack:
        try:
            process, _ = await spawn(
                command, stack, message=message, env=env, stderr=subprocess.DEVNULL, log_pipe=False
            )
        except OSError as error:
            raise ExecutionError(f"cannot start the linter process: {error.strerror}") from None
        assert process.stdout is not None
        output = bytearray()
        try:
            async with process.stdout:
                async for chunk in process.stdout:
                    output += chunk
                    if len(output) > _MAX_OUTPUT:
                        break
                else:
                    await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with trio.CancelScope(shield=True):  # it was killed, so this does not take long
                code = await process.wait()
        return code, bytes(output)
