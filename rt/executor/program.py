"""The robot's program: team code, loaded anew for each mode, and the functions to execute."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rt import log
from rt.config.team_code import locate
from rt.errors import ExecutionError
from rt.executor import calling
from rt.executor.commands import DEFAULT_TIMEOUT, RequestSpec
from rt.executor.loader import load
from rt.executor.main_thread import MainThread
from rt.executor.report import Reporter
from rt.executor.sync import ExecutionRequest, Run
from rt.text import clip, closest

LOAD_LIMIT = 10.0
"""How long the import of team code may take, in s."""
_SHOWN_MAX = 3


class Program:
    """Loads team code in the main thread and finds its functions.

    Args:
        main_thread: Loads the code.
        reporter: Is given the path of the code.
        names: The names that team code finds without importing them.
        time_limit: Returns the time limit or period of a function in s, or None.
        exec_module: The option: a module's name or a path.
        directory: Where the code is looked for, whatever the working directory has become.

    Attributes:
        path: The file, once it has been found.
    """

    def __init__(
        self,
        *,
        main_thread: MainThread,
        reporter: Reporter,
        names: Mapping[str, Any],
        time_limit: Callable[[str], float | None],
        exec_module: str,
        directory: Path,
    ) -> None:
        self._main_thread = main_thread
        self._reporter = reporter
        self._names = names
        self._time_limit = time_limit
        self._exec_module = exec_module
        self._directory = directory
        self.path = Path()
        self._log = log.get_logger()

    async def prepare(
        self, specs: Sequence[RequestSpec], *, partial: bool
    ) -> list[ExecutionRequest]:
        """Load the team code in the main thread and find the functions to execute.

        Args:
            specs: What to execute.
            partial: Whether one existing function is enough.

        Raises:
            ExecutionError: The code cannot be loaded, or lacks a requested function.
        """
        if any(spec.periodic for spec in specs[:-1]):
            raise ExecutionError("a periodic request must be the last one, because it never ends")
        self.path = path = locate(self._exec_module, self._directory)
        self._reporter.path = path
        self._main_thread.sync.folder = str(path.parent)
        outcome: list[ModuleType | ExecutionError] = []

        def load_code() -> None:
            try:
                outcome.append(load(path, self._names))
            except ExecutionError as error:
                outcome.append(error)

        await self._main_thread.finish(Run([ExecutionRequest(load_code, timeout=LOAD_LIMIT)], None))
        if not outcome:
            raise ExecutionError(
                f"{path} took longer than {LOAD_LIMIT:g} s to import", path=str(path)
            )
        module = outcome[0]
        if isinstance(module, ExecutionError):
            raise module
        names = vars(module)
        present = [spec for spec in specs if spec.func in names]
        missing = [spec.func for spec in specs if spec.func not in names]
        if missing and not (partial and present):
            shown = [clip(name) for name in dict.fromkeys(missing)][:_SHOWN_MAX]
            message = (
                f"{path} has no function {' and no '.join(shown)}{self._suggestion(module, shown)}"
            )
            raise ExecutionError(message, path=str(path), wanted=shown)
        for name in missing:
            if name.endswith("_main"):
                prefix = name.removesuffix("_main")
                self._log.warning(
                    f"{path.name} has no {name}: only actions run after {prefix}_setup"
                )
        return [
            self._mode_request(module, spec) if partial else self._request(module, spec)
            for spec in present
        ]

    def _request(self, module: ModuleType, spec: RequestSpec) -> ExecutionRequest:
        """Create the request of a caller, which may execute only functions of the team code."""
        func = calling.function(vars(module), spec.func, str(self.path.parent))
        return self._timed(func, calling.arguments(func, spec.func, spec.args), spec)

    def _mode_request(self, module: ModuleType, spec: RequestSpec) -> ExecutionRequest:
        """Create the request of a mode, whose functions are found by name."""
        path, func = str(self.path), vars(module)[spec.func]
        if not callable(func) or inspect.iscoroutinefunction(func):
            raise ExecutionError(
                f"{path}: {spec.func} must be a plain function, `def {spec.func}():`",
                path=path,
                func=spec.func,
            )
        return self._timed(func, tuple(spec.args), spec)

    def _timed(
        self, func: Callable[..., Any], args: tuple[Any, ...], spec: RequestSpec
    ) -> ExecutionRequest:
        timeout = spec.timeout or self._time_limit(spec.func) or DEFAULT_TIMEOUT
        return ExecutionRequest(func, args, timeout, spec.periodic)

    def _suggestion(self, module: ModuleType, missing: Sequence[str]) -> str:
        known = calling.functions(vars(module), str(self.path.parent))
        near = dict.fromkeys(
            found for wanted in missing if (found := closest(wanted, known, cutoff=0.6)) is not None
        )
        return f": did you mean {' and '.join(near)}?" if near else ""
