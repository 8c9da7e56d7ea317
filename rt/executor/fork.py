"""Detects processes that team code forked from the executor, by os.fork or multiprocessing.

Invariant: only the process that the robot started moves devices. A fork shares its memory, but has
none of the threads that stop it.
"""

import os


class _Process:
    forked = False


def is_forked() -> bool:
    """Return whether this process was forked from the executor."""
    return _Process.forked


def _set_forked() -> None:
    _Process.forked = True


os.register_at_fork(after_in_child=_set_forked)
