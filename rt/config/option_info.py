"""Descriptions of the options, derived from the annotations of `Config`."""

from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from rt.config.options import Config

Kind = Literal["switch", "number", "text", "choice", "list", "map"]


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """Description of one option.

    Attributes:
        name: Name in rt.toml and in `Config`.
        kind: How the value is written; a list and a map may be given in parts.
        type: Annotation that a value must satisfy; for a map, that of an entry.
        default: Default value.
        meaning: Purpose, one line.
        group: Heading that shows the option.
        unit: Unit of a number, or "".
        allowed: Allowed values, for a map those of an entry; the phrase follows "is not".
        choices: Values of a choice.
        is_path: Whether a relative value is relative to the directory of the file that sets it.
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
        """Environment variable that sets the option."""
        return f"RT_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Command line flag that sets the option."""
        return f"--{self.name.replace('_', '-')}"


def _describe(name: str, annotation: Any, default: Any) -> Option:
    base, meta = get_args(annotation)
    extra = dict(meta.extra)
    allowed = extra.pop("allowed") or "a text"
    kind: Kind = "text"
    checked: Any = annotation
    choices: tuple[str, ...] = ()
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
    return Option(
        name=name,
        kind=kind,
        type=checked,
        default=default,
        meaning=meta.description,
        allowed=allowed,
        choices=choices,
        **extra,
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
"""All options by name, in the order in which they are shown."""
