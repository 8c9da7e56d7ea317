"""The robot's program: team code, loaded anew for each mode, and the functions to execute."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rt import log
from rt.errors import ExecutionError
from rt.executor import remote_calls
from rt.executor.loader import load
from rt.executor.main_thread import finish
from rt.executor.messages import DEFAULT_TIMEOUT, Prepare, RequestSpec
from rt.executor.time_limit import ExecutionRequest, Run, SyncExecutor
from rt.text import clip, closest

LOAD_LIMIT = 10.0
"""How long the import of team code may take, in s."""
_SHOWN_MAX = 3


async def prepare(
    command: Prepare,
    path: Path,
    *,
    sync: SyncExecutor,
    names: Mapping[str, Any],
    time_limit: Callable[[str], float | None],
) -> list[ExecutionRequest]:
    """Load team code in the main thread and find the functions to execute.

    Args:
        command: What to execute.
        path: The file.
        sync: The main thread's executor.
        names: The names that team code finds without importing them.
        time_limit: Returns the time limit or period of a function in s, or None.

    Raises:
        ExecutionError: The code cannot be loaded, or lacks a requested function.
    """
    specs = command.requests
    if any(spec.periodic for spec in specs[:-1]):
        raise ExecutionError("a periodic request must be the last one, because it never ends")
    module = await _load(path, sync, names)
    present = [spec for spec in specs if spec.func in vars(module)]
    missing = [spec.func for spec in specs if spec.func not in vars(module)]
    if missing and not (command.partial and present):
        shown = [clip(name) for name in dict.fromkeys(missing)][:_SHOWN_MAX]
        message = f"{path} has no function {' and no '.join(shown)}"
        raise ExecutionError(
            f"{message}{_suggestion(module, path, shown)}", path=str(path), wanted=shown
        )
    for name in missing:
        if name.endswith("_main"):
            prefix = name.removesuffix("_main")
            log.get_logger().warning(
                f"{path.name} has no {name}: only actions run after {prefix}_setup"
            )
    find = _mode_function if command.partial else _function
    return [
        ExecutionRequest(
            *find(module, path, spec),
            spec.timeout or time_limit(spec.func) or DEFAULT_TIMEOUT,
            spec.periodic,
        )
        for spec in present
    ]


async def _load(path: Path, sync: SyncExecutor, names: Mapping[str, Any]) -> ModuleType:
    outcome: list[ModuleType | ExecutionError] = []

    def load_code() -> None:
        try:
            outcome.append(load(path, names))
        except ExecutionError as error:
            outcome.append(error)

    await finish(sync, Run([ExecutionRequest(load_code, timeout=LOAD_LIMIT)], None))
    if not outcome:
        raise ExecutionError(f"{path} took longer than {LOAD_LIMIT:g} s to import", path=str(path))
    if isinstance(outcome[0], ExecutionError):
        raise outcome[0]
    return outcome[0]


def _function(
    module: ModuleType, path: Path, spec: RequestSpec
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return a function and its arguments for a caller, who may execute only team code's own."""
    func = remote_calls.function(vars(module), spec.func, str(path.parent))
    return func, remote_calls.arguments(func, spec.func, spec.args)


def _mode_function(
    module: ModuleType, path: Path, spec: RequestSpec
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return a function of a mode, which is found by name, and its arguments."""
    func = vars(module)[spec.func]
    if not callable(func) or inspect.iscoroutinefunction(func):
        raise ExecutionError(
            f"{path}: {spec.func} must be a plain function, `def {spec.func}():`",
            path=str(path),
            func=spec.func,
        )
    return func, tuple(spec.args)


def _suggestion(module: ModuleType, path: Path, missing: Sequence[str]) -> str:
    known = remote_calls.functions(vars(module), str(path.parent))
    near = dict.fromkeys(
        found for wanted in missing if (found := closest(wanted, known, cutoff=0.6)) is not None
    )
    return f"; did you mean {' and '.join(near)}?" if near else ""
