"""What there is to say about one option, read off the type that `Config` gives it."""

from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from rt.config.options import Config

Kind = Literal["switch", "number", "text", "choice", "list", "map"]


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option as a person meets it.

    Attributes:
        name: Its name in rt.toml and in `Config`.
        kind: How it is written: a list and a map may be given in parts.
        type: The annotation that a value has to satisfy; for a map, that of one of its values.
        default: Its value when nobody says anything.
        meaning: What it is for, one line.
        group: The heading that it stands under.
        unit: The unit of a number, or nothing.
        allowed: The values that it takes, of a map those of an entry, in words that follow "is
            not".
        choices: The words of a choice.
        is_path: A relative one is meant from where it is written.
    """

    name: str
    kind: Kind
    type: Any
    default: Any
    meaning: str
    group: str
    unit: str
    allowed: str
    choices: tuple[str, ...] = ()
    is_path: bool = False

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return f"RT_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The flag that sets it."""
        return f"--{self.name.replace('_', '-')}"


def _describe(name: str, annotation: Any, default: Any) -> Option:
    base, meta = get_args(annotation)
    extra: dict[str, Any] = meta.extra
    kind: Kind
    checked: Any = annotation
    choices: tuple[str, ...] = ()
    allowed = extra["allowed"]
    if base is bool:
        kind, allowed = "switch", "true or false"
    elif base in {int, float}:
        kind = "number"
        sort = "a whole number" if base is int else "a number"
        allowed = f"{sort} from {meta.ge} to {meta.le}" + (
            f" ({extra['unit']})" if extra["unit"] else ""
        )
    elif get_origin(base) is Literal:
        kind, choices = "choice", get_args(base)
        allowed = f"one of {', '.join(choices)}"
    elif get_origin(base) is tuple:
        kind, element = "list", get_args(base)[0]
        allowed = f"a list in which each entry is {_element(element)}"
    elif get_origin(base) is dict:
        kind, checked = "map", get_args(base)[1]
        allowed = _element(checked)
    else:
        kind = "text"
        allowed = allowed or "a text"
    return Option(
        name=name,
        kind=kind,
        type=checked,
        default=default,
        meaning=meta.description,
        group=extra["group"],
        unit=extra["unit"],
        allowed=allowed,
        choices=choices,
        is_path=extra["is_path"],
    )


def _element(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return str(get_args(annotation)[1].description)
    return "a text"


def _all() -> dict[str, Option]:
    hints = get_type_hints(Config, include_extras=True)
    defaults = Config()
    return {
        name: _describe(name, hints[name], getattr(defaults, name))
        for name in Config.__struct_fields__
    }


OPTIONS = MappingProxyType(_all())
"""Every option under its name, in the order in which they are shown."""
