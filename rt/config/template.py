"""The commented rt.toml of `rt init`: every option at its default, each ready to be uncommented.

Maps come last because in TOML everything after a table's header belongs to the table.
"""

import json
import textwrap
from collections.abc import Iterator

from rt.config.option import OPTIONS, Option

_WIDTH = 110
_HEAD = """\
# Options of this robot. A line that begins with '#' shows the default; remove the '#' to change it.
# `rt config set`, variables (RT_PORT_BASE=7000) and flags (--port-base 7000) go before what is
# written here; `rt config` shows what counts.
"""

_TABLES = [
    "## Everything below a line [name] belongs to that table: the options above have to stay above the first such line.",
    "",
]
EXAMPLE = {"left_motor": "56668397794435742564353"}
"""A device and its name, for a start."""
_EXAMPLE_ABOUT = "## `rt devices` shows the UIDs of your devices; this one is what `rt emulate-dev polar-bear@1` plays."


def template() -> str:
    """Return the text of an rt.toml in which every option is commented out."""
    single = [option for option in OPTIONS.values() if option.kind != "map"]
    maps = [option for option in OPTIONS.values() if option.kind == "map"]
    lines = [_HEAD]
    group = ""
    for option in single:
        if option.group != group:
            group = option.group
            lines.append(f"\n# ---- {group} ----\n")
        lines += [*_about(option), f"# {option.name} = {_toml(option.default)}", ""]
    lines += ["\n# ---- Tables ----\n", *_TABLES]
    for option in maps:
        example = option.default or EXAMPLE
        lines += [
            *_about(option),
            *([_EXAMPLE_ABOUT] if example is EXAMPLE else []),
            f"# [{option.name}]",
            *(f"# {_toml(k)} = {_toml(v)}" for k, v in example.items()),
            "",
        ]
    return "\n".join(lines)


def _about(option: Option) -> Iterator[str]:
    text = f"{option.meaning[:1].upper()}{option.meaning[1:]}: {option.allowed}."
    for line in textwrap.wrap(text, _WIDTH):
        yield f"## {line}"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)  # a JSON scalar is a TOML scalar, for text of plain characters
