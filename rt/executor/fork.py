"""Whether this process is a copy that the team's code made of the executor, by os.fork or multiprocessing.

The rule of this module: only the process that the robot started moves devices. A copy shares its
memory and has none of the threads that stop it.
"""

import os


class _Process:
    forked = False


def is_forked() -> bool:
    """Whether this process was forked from the executor."""
    return _Process.forked


def _set_forked() -> None:
    _Process.forked = True


os.register_at_fork(after_in_child=_set_forked)
