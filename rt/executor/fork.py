"""Detects processes that team code forked from the executor, by os.fork or multiprocessing.

Invariant: only the process that the robot started moves devices. A fork shares its memory, but has
none of the threads that stop it.
"""

import os

from rt.errors import ExecutionError


class _Process:
    forked = False


def is_forked() -> bool:
    """Return whether this process was forked from the executor."""
    return _Process.forked


def refuse_fork(action: str) -> None:
    """Raise if this process was forked from the executor.

    Raises:
        ExecutionError: It was, so it cannot do the action.
    """
    if _Process.forked:
        raise ExecutionError(f"a process that team code forked cannot {action}")


def _set_forked() -> None:
    _Process.forked = True


os.register_at_fork(after_in_child=_set_forked)
