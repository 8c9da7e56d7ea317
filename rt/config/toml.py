"""The parser of rt.toml, which knows the line of each value.

`tomllib` returns values without positions, so the lines are found in the text: the line of a key is
the one that assigns it below the header of its table.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rt.config.toml_errors import explained
from rt.errors import ConfigError
from rt.text import toml_error

_MULTI_LINE = re.compile(r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'')
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_INLINE_KEY = re.compile(rf"[{{,]\s*({_DOTTED})\s*=")

Keys = tuple[str, ...]


class Document:
    """A parsed rt.toml.

    Attributes:
        path: Path of the file.
        label: Name of the file in messages.
        values: Parsed content.
    """

    def __init__(self, path: Path, label: str, values: Mapping[str, Any], text: str) -> None:
        self.path = path
        self.label = label
        self.values = values
        self._lines = _places(text)

    def place(self, *keys: str) -> str:
        """Return "rt.toml:12" for the value with these keys, or for the innermost known table."""
        for length in range(len(keys), 0, -1):
            line = self._lines.get(keys[:length])
            if line is not None:
                return f"{self.label}:{line}"
        return self.label


def read(path: Path, label: str) -> Document:
    """Read an rt.toml.

    Raises:
        ConfigError: The file cannot be read, is not UTF-8, or is not TOML; the message names line
            and column.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{label}: cannot read it: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{label}:{line}: not UTF-8 text", file=str(path), line=line) from None
    try:
        return Document(path, label, tomllib.loads(text), text)
    except (ValueError, RecursionError) as error:
        reason, line, column = toml_error(error, text)
        reason = explained(reason, text.splitlines(), line)
        place = f"{label}:{line}:{column}" if line else label
        raise ConfigError(f"{place}: {reason}", file=str(path), line=line, column=column) from None


def _places(text: str) -> dict[Keys, int]:
    # Text inside a multi-line string contains no keys.
    blank = _MULTI_LINE.sub(lambda match: '""' + "\n" * match[0].count("\n"), text)
    places: dict[Keys, int] = {}
    table: Keys = ()
    for number, line in enumerate(blank.split("\n"), start=1):
        if header := _HEADER.match(line):
            table = _split(header[1])
            _note(places, table, number)
        elif key := _KEY.match(line):
            keys = (*table, *_split(key[1]))
            _note(places, keys, number)
            for inner in _INLINE_KEY.finditer(line, key.end()):
                _note(places, (*keys, *_split(inner[1])), number)
    return places


def _note(places: dict[Keys, int], keys: Keys, line: int) -> None:
    for length in range(1, len(keys) + 1):
        places.setdefault(keys[:length], line)


def _split(dotted: str) -> Keys:
    # The key is valid TOML, so tomllib can resolve quotes and escapes.
    keys: list[str] = []
    value: Any = tomllib.loads(f"{dotted} = 0")
    while isinstance(value, dict):
        (key,) = value
        keys.append(key)
        value = value[key]
    return tuple(keys)
