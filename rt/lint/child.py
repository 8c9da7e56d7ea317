"""The linter's process, `_child lint FD`: the request comes on the lifeline, the records go to stdout.

It runs no code of the team's, but a hostile file may still cost time and memory. The memory has a
limit here, and of the time this process gets what the robot leaves over; whoever started it counts
the seconds.
"""

import contextlib
import os
import resource
import sys

import msgspec

from rt.errors import RuntimeBaseException
from rt.lint.record import Record, record
from rt.lint.request import LintRequest
from rt.process.lifeline import Lifeline

MAX_MEMORY = 768 << 20
"""Bytes of address space: a file of the largest size takes a third of it."""
_OOM_SCORE = b"1000"
_NICE = 5
_TOO_LARGE = "the program needs too much memory to be looked at: split it into smaller files"


class Answer(msgspec.Struct, frozen=True):
    """What the process says: records, or why there are none.

    Attributes:
        records: The records.
        error: Why the program could not be looked at at all, or empty.
        context: Of that error.
    """

    records: list[Record] = []
    error: str = ""
    context: dict[str, str] = {}


def main(lifeline: Lifeline) -> int:
    """Be the linter's process.

    Args:
        lifeline: Carries the request; the kernel kills this process when whoever wants the answer
            is gone.

    Returns:
        The exit code.
    """
    request = LintRequest.decode(lifeline.read_message())
    lifeline.kill_group_at_eof()
    _limit_resources()
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer(request)))
    sys.stdout.buffer.flush()
    # What a large tree takes to be taken apart is time that nobody needs to wait for.
    os._exit(0)


def answer(request: LintRequest) -> Answer:
    """Lint what is asked for; whatever comes of it is an answer."""
    try:
        from rt.lint.lint import lint

        return Answer(lint(request))
    except RuntimeBaseException as error:
        return Answer(
            error=error.message, context={key: str(value) for key, value in error.context.items()}
        )
    except MemoryError:
        return Answer([failure_record(request, "too-large", "RT907", _TOO_LARGE)])
    except Exception as error:  # noqa: BLE001 - a fault of ours is told as one
        sentence = f"the linter failed, which is a fault of rt: {type(error).__name__}: {error}"
        return Answer([failure_record(request, "check-failed", "RT906", sentence)])


def failure_record(request: LintRequest, symbol: str, message_id: str, sentence: str) -> Record:
    """The record of a program that could not be looked at to the end."""
    path = next(iter(request.files), request.exec_module)
    is_path = path.endswith(".py") or "/" in path
    return record(
        "fatal", path if is_path else f"{path.replace('.', '/')}.py", symbol, message_id, sentence
    )


def _limit_resources() -> None:
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:  # noqa: PTH123 - a file of the kernel
        file.write(_OOM_SCORE)
