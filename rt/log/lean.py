"""structlog, without what it imports and rt does not use.

It takes rich, for tracebacks, and asyncio, for its coroutines, wherever they are installed. That
would cost each process of a robot more time at its start than all the rest of the log, and 5 MB; so
the two are withheld while structlog is imported.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module that is imported when somebody uses it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _withheld(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Let an import find these instead of modules that are not imported yet; None stands for one that is not installed."""
    withheld = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(withheld)  # type: ignore[arg-type]  # None is what the import system takes for a module that there is not
    try:
        yield
    finally:
        for name in withheld:
            del sys.modules[name]


with _withheld({"rich": None, "asyncio": _Later("asyncio")}):
    import structlog
    from structlog.typing import FilteringBoundLogger

__all__ = ["FilteringBoundLogger", "structlog"]
