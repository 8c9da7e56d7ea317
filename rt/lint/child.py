"""The linter's process, `_child lint FD`: request from the lifeline in, answer to stdout out.

It runs no team code, but a hostile file may still cost time and memory. The process limits its own
memory and runs at low priority; its parent limits the time.
"""

import contextlib
import os
import resource
import sys
from pathlib import Path

import msgspec

from rt.errors import RuntimeBaseException
from rt.lint.record import Record, record
from rt.lint.request import LintRequest
from rt.process.lifeline import Lifeline
from rt.protocol import structs

MAX_MEMORY = 768 << 20
"""Bytes of address space; a file of the maximum size needs a third of it."""
_OOM_SCORE = b"1000"
_NICE = 5
_TOO_LARGE = "the program needs too much memory to check: split it into smaller files"


class Answer(msgspec.Struct, frozen=True):
    """The answer of the process: records, or an error.

    Attributes:
        records: The records.
        error: Why the program could not be checked at all; else empty.
        context: The context of the error.
    """

    records: list[Record] = []
    error: str = ""
    context: dict[str, str] = {}


def main(lifeline: Lifeline) -> int:
    """Run the linter's process.

    Args:
        lifeline: Carries the request; the kernel kills this process when the parent has exited.

    Returns:
        The exit code.
    """
    request: LintRequest = structs.decode(lifeline.read_message(), LintRequest)
    lifeline.kill_group_at_eof()
    _limit_resources()
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer(request)))
    sys.stdout.buffer.flush()
    # Without freeing a large tree, which takes time.
    os._exit(0)


def answer(request: LintRequest) -> Answer:
    """Lint the request; every outcome is an answer."""
    try:
        from rt.lint.lint import lint

        return Answer(lint(request))
    except RuntimeBaseException as error:
        return Answer(
            error=error.message, context={key: str(value) for key, value in error.context.items()}
        )
    except MemoryError:
        return Answer([failure_record(request, "too-large", "RT907", _TOO_LARGE)])
    except Exception as error:  # noqa: BLE001 - a bug in the linter is a record too
        message = f"bug in rt: the linter failed: {type(error).__name__}: {error}"
        return Answer([failure_record(request, "check-failed", "RT906", message)])


def failure_record(request: LintRequest, symbol: str, message_id: str, message: str) -> Record:
    """Create the record of a program that could not be checked completely."""
    path = next(iter(request.files), request.config.exec_module)
    is_path = path.endswith(".py") or "/" in path
    return record(
        "fatal", path if is_path else f"{path.replace('.', '/')}.py", symbol, message_id, message
    )


def _limit_resources() -> None:
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(_OOM_SCORE)
