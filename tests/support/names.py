"""Resolves dotted paths in texts."""

import importlib
import inspect
import re
from typing import Any


def find(path: str) -> Any:
    """Return what a dotted path leads to; ``X(a)`` is the argument ``a`` of ``X``."""
    whole, _, argument = path.removesuffix(")").partition("(")
    prefix = ""
    found: Any = None
    for name in whole.split("."):
        prefix = f"{prefix}.{name}".removeprefix(".")
        if found is None or (inspect.ismodule(found) and not hasattr(found, name)):
            found = importlib.import_module(prefix)
        else:
            found = attribute(found, name)
    return inspect.signature(found).parameters[argument] if argument else found


def attribute(owner: Any, name: str) -> Any:
    """Return an attribute of a module or a class, also one that is set in an ``__init__``."""
    try:
        return getattr(owner, name)
    except AttributeError:
        for base in inspect.getmro(owner) if inspect.isclass(owner) else ():
            method = vars(base).get("__init__")
            if inspect.isfunction(method) and re.search(
                rf"\bself\.{name}\b[^=\n]*=", inspect.getsource(method)
            ):
                return method
        raise
