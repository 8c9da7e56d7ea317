"""From a dotted path in a text to what it names."""

import importlib
import inspect
import re
from typing import Any


def find(path: str) -> Any:
    """What a dotted path leads to; ``X(a)`` is the argument ``a`` of ``X``."""
    whole, _, argument = path.removesuffix(")").partition("(")
    place = ""
    found: Any = None
    for name in whole.split("."):
        place = f"{place}.{name}".removeprefix(".")
        if found is None or (inspect.ismodule(found) and not hasattr(found, name)):
            found = importlib.import_module(place)
        else:
            found = attribute(found, name)
    return inspect.signature(found).parameters[argument] if argument else found


def attribute(owner: Any, name: str) -> Any:
    """An attribute of a module or a class, also one that the class, or one that it derives from, makes in ``__init__``."""
    try:
        return getattr(owner, name)
    except AttributeError:
        for kind in inspect.getmro(owner) if inspect.isclass(owner) else ():
            made = vars(kind).get("__init__")
            if inspect.isfunction(made) and re.search(
                rf"\bself\.{name}\b[^=\n]*=", inspect.getsource(made)
            ):
                return made
        raise
