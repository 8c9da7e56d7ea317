"""Loads team code from a file, anew for each mode, with the names that it does not import."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rt.errors import ExecutionError
from rt.executor.stack_frames import is_team_file, where
from rt.executor.time_limit import StopRun, TimeLimitError
from rt.protocol import exception


def load(path: Path, names: Mapping[str, Any]) -> ModuleType:
    """Execute the team code anew, and reload the modules of its folder that it imports.

    Args:
        path: The file.
        names: Names that the code finds without importing them.

    Raises:
        ExecutionError: The code cannot be read or compiled, or raises; the message names file and
            line.
    """
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    vars(module).update(names)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    for name, loaded in list(sys.modules.items()):
        origin = getattr(loaded, "__file__", None)
        if (
            isinstance(origin, str)
            and is_team_file(origin, folder)
            and not f"{name}.".startswith(("rt.", "__"))
        ):
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.modules[path.stem] = module
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _refusal(error, path) from None
    except (OSError, ValueError) as error:
        raise ExecutionError(f"{path} cannot be read: {error}", path=str(path)) from error
    try:
        exec(code, vars(module))  # noqa: S102 - this process exists to run team code
    except SyntaxError as error:
        raise _refusal(error, path) from None
    except (TimeLimitError, StopRun):
        raise
    except BaseException as error:
        # Also SystemExit: sys.exit() at import must not end this process.
        place, line = where(error, path)
        raise ExecutionError(
            f"{place}:{line}: {type(error).__name__}: {exception.message(error)}",
            path=place,
            line=line,
        ) from error
    return module


def _refusal(error: SyntaxError, path: Path) -> ExecutionError:
    place, line = error.filename or str(path), error.lineno or 1
    return ExecutionError(f"{place}:{line}: {error.msg}", path=place, line=line)
