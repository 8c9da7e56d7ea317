"""The team's program: loaded anew for each mode, and asked for the functions that the mode executes."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec

from rt import log
from rt.config.team_code import locate
from rt.errors import ExecutionError
from rt.executor.loader import load
from rt.executor.main_thread import MainThread
from rt.executor.report import Reporter
from rt.executor.sync import ExecutionRequest, Run

LOAD_LIMIT = 10.0
"""How long the team's code may take to be imported (s)."""
DEFAULT_TIMEOUT = 1.0


class RequestSpec(msgspec.Struct, forbid_unknown_fields=True):
    """A request to execute a function of the team's code, as it travels."""

    func: str
    args: list[Any] = []
    timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None
    periodic: bool = False


class Program:
    """Loads the team's code in the main thread and finds its functions.

    Args:
        main_thread: Where the code is loaded.
        reporter: Told where the code is.
        names: What the team's code finds without importing it.
        time_limit: The time limit or period of a function by its name (s), or None.
        exec_module: Where the team's code is.
        directory: Where it is looked for, whatever the working directory has become.

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

    async def prepare(self, specs: Sequence[RequestSpec], *, partial: bool) -> list[ExecutionRequest]:
        """Load the team's code in the main thread and find what is to be executed.

        Args:
            specs: What is to be executed.
            partial: Whether one of them is enough.

        Raises:
            ExecutionError: The code cannot be loaded, or has not what is asked for.
        """
        if any(spec.periodic for spec in specs[:-1]):
            raise ExecutionError("a periodic request never ends: it has to be the last one")
        self.path = path = locate(self._exec_module, self._directory)
        self._reporter.path = path
        self._main_thread.sync.team = str(path.parent)
        outcome: list[ModuleType | ExecutionError] = []

        def load_code() -> None:
            try:
                outcome.append(load(path, self._names))
            except ExecutionError as error:
                outcome.append(error)

        await self._main_thread.finish(Run([ExecutionRequest(load_code, timeout=LOAD_LIMIT)], None))
        if not outcome:
            raise ExecutionError(f"{path} took more than {LOAD_LIMIT:g} s to be imported", path=str(path))
        module = outcome[0]
        if isinstance(module, ExecutionError):
            raise module
        present = [spec for spec in specs if hasattr(module, spec.func)]
        missing = [spec.func for spec in specs if spec not in present]
        if missing and not (partial and present):
            sentence = f"{path} has no function {' and no '.join(missing)}{_suggestion(module, missing)}"
            raise ExecutionError(sentence, path=str(path), wanted=[spec.func for spec in specs])
        for name in missing:
            if name.endswith("_main"):
                prefix = name.removesuffix("_main")
                self._log.warning(
                    f"{path.name} has no {name}: after {prefix}_setup only the actions that it started go on"
                )
        return [self._request(module, spec) for spec in present]

    def _request(self, module: ModuleType, spec: RequestSpec) -> ExecutionRequest:
        path, func = str(self.path), getattr(module, spec.func)
        if not callable(func) or inspect.iscoroutinefunction(func):
            raise ExecutionError(
                f"{path}: {spec.func} has to be a plain function, `def {spec.func}():`", path=path, func=spec.func
            )
        timeout = spec.timeout or self._time_limit(spec.func) or DEFAULT_TIMEOUT
        return ExecutionRequest(func, tuple(spec.args), timeout, spec.periodic)


def _suggestion(module: ModuleType, missing: Sequence[str]) -> str:
    functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
    near = {name: None for wanted in missing for name in difflib.get_close_matches(wanted, functions, n=1)}
    return f": did you mean {' and '.join(near)}?" if near else ""
