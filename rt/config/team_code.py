"""The file of the team code that the option exec_module names.

Invariant: a name that cannot be a file, or whose directory is not accessible, counts as missing.
"""

import os
import os.path
from pathlib import Path

from rt.errors import ExecutionError


def find(exec_module: str, directory: Path) -> Path | None:
    """Return the file of a module name or a path relative to a directory, or None if missing.

    Args:
        exec_module: Module name (``studentcode``, ``robot.drive``) or path.
        directory: Directory of the project.
    """
    return next((each for each in _candidates(exec_module, directory) if is_file(each)), None)


def locate(exec_module: str, directory: Path) -> Path:
    """Return the resolved path of the file that `find` finds.

    Raises:
        ExecutionError: The file is missing.
    """
    path = find(exec_module, directory)
    if path is not None:
        return path.resolve()
    wanted = _candidates(exec_module, directory)[0]
    raise ExecutionError(
        f"no team code at {wanted}; write it (`rt init` creates an example) or set exec_module",
        path=str(wanted),
    )


def is_file(path: Path) -> bool:
    """Whether a file exists; accepts every name and inaccessible directories, where it is False."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for some names


def _candidates(exec_module: str, directory: Path) -> list[Path]:
    if exec_module.endswith(".py") or "/" in exec_module:
        return [directory / exec_module]
    base = directory.joinpath(*exec_module.split("."))
    return [base.with_name(f"{base.name}.py"), base / "__init__.py"]


def removed_directory() -> str | None:
    """Return an error message if the working directory of this process was removed, else None."""
    try:
        os.getcwd()  # noqa: PTH109 - fails if the directory was removed
    except FileNotFoundError:
        try:
            link = os.readlink("/proc/self/cwd")  # noqa: PTH115 - no longer a path
            name = link.removesuffix(" (deleted)")
        except OSError:
            name = "of the robot"
        return f"the project folder {name} was removed; create it and restart the robot in it"
    return None
