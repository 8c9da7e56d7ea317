"""An import of structlog without rich and asyncio, which rt does not use.

structlog imports rich, for tracebacks, and asyncio, for its coroutines, if they are installed. That
doubles the time and the memory of its import, in each process of a robot. The two are hidden while
structlog is imported.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """A module that is imported when an attribute is read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


_hidden: dict[str, Any] = {"rich": None, "asyncio": _LazyModule("asyncio")}  # None: not installed
_hidden = {name: module for name, module in _hidden.items() if name not in sys.modules}
sys.modules.update(_hidden)
try:
    import structlog
    from structlog.typing import FilteringBoundLogger
finally:
    for _name in _hidden:
        del sys.modules[_name]

__all__ = ["FilteringBoundLogger", "structlog"]
