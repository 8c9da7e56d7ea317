"""An import of structlog without rich and asyncio, which rt does not use.

structlog imports rich, for tracebacks, and asyncio, for its coroutines, if they are installed. This
would take each process of a robot longer than the rest of the log, and 5 MB of memory. The two are
hidden while structlog is imported.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """A module that is imported when an attribute is read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _replaced(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Replace modules that are not imported yet within the block; None makes an import fail."""
    replaced = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(replaced)  # type: ignore[arg-type]  # the import system accepts None
    try:
        yield
    finally:
        for name in replaced:
            del sys.modules[name]


with _replaced({"rich": None, "asyncio": _LazyModule("asyncio")}):
    import structlog
    from structlog.typing import FilteringBoundLogger

__all__ = ["FilteringBoundLogger", "structlog"]
