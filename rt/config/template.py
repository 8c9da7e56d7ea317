"""The commented rt.toml of `rt init`, which shows every option with its default.

Maps come last because everything after a table header belongs to that table in TOML.
"""

import json
import textwrap
from collections.abc import Iterator

from rt.config.option_info import OPTIONS, Option

_WIDTH = 97
_HEAD = """\
# Options of this robot. A line that begins with '#' shows the default; remove the '#' to change it.
# `rt config set`, variables (RT_PORT_BASE=7000) and flags (--port-base 7000) override this file;
# `rt config` shows the resulting values.
"""

_TABLES = [
    "## Everything below a line [name] belongs to that table, so keep the options above before it.",
    "",
]
EXAMPLE = {"left_motor": "56668397794435742564353"}
"""Example of a device name."""
_EXAMPLE_ABOUT = "## `rt devices` shows UIDs; `rt emulate-dev polar-bear@1` emulates this device."


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
    return json.dumps(value)  # scalars of plain characters are the same in JSON and TOML
