"""Where the team's code is: what the option exec_module means, for whoever runs the code or looks at it.

The rule of this module: what cannot be a file, or may not be looked at, is none.
"""

import os
import os.path
from pathlib import Path

from rt.errors import ExecutionError


def find(exec_module: str, directory: Path) -> Path | None:
    """The file of a module's name (``studentcode``, ``robot.drive``) or of a path, as it is meant from a directory, if there is one."""
    return next((each for each in _candidates(exec_module, directory) if is_file(each)), None)


def locate(exec_module: str, directory: Path) -> Path:
    """The same, resolved.

    Raises:
        ExecutionError: There is no such file.
    """
    path = find(exec_module, directory)
    if path is not None:
        return path.resolve()
    wanted = _candidates(exec_module, directory)[0]
    raise ExecutionError(
        f"there is no team code at {wanted}: write it there (`rt init` makes an example) or set exec_module",
        path=str(wanted),
    )


def is_file(path: Path) -> bool:
    """Whether a file is there; unlike `Path.is_file` it bears every name, and directories that are closed to us."""
    return os.path.isfile(path)  # noqa: PTH113


def _candidates(exec_module: str, directory: Path) -> list[Path]:
    if exec_module.endswith(".py") or "/" in exec_module:
        return [directory / exec_module]
    base = directory.joinpath(*exec_module.split("."))
    return [base.with_name(f"{base.name}.py"), base / "__init__.py"]


def removed_directory() -> str | None:
    """The sentence about the working directory of this process if it was removed, else None."""
    try:
        os.getcwd()  # noqa: PTH109 - fails where the directory has no name any more
    except FileNotFoundError:
        try:
            name = os.readlink("/proc/self/cwd").removesuffix(" (deleted)")  # noqa: PTH115 - not a path any more
        except OSError:
            name = "of the robot"
        return f"the project folder {name} was removed: make it again and restart the robot in it"
    return None
