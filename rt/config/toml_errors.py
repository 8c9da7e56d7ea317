"""Slips in an rt.toml, in words that name the remedy; what `tomllib` says of them is for people who know TOML."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*([^=#]+?)\s*=")
_WORD = re.compile(r"[^\W\d][^\"'\[\]{},]*|[/.~].*")


class _Slip:
    """A line that is wrong.

    Args:
        lines: The file.
        number: The number of the line, from 1.
    """

    def __init__(self, lines: Sequence[str], number: int) -> None:
        self.lines = lines
        self.number = number
        self.line = lines[number - 1] if 0 < number <= len(lines) else ""
        before, self.equals, after = self.line.partition("=")
        self.name = before.strip()
        self.value = re.sub(r"\s+#.*", "", after).strip()

    def twice(self, pattern: re.Pattern[str]) -> tuple[str, str]:
        """What a pattern finds in this line, and on which lines that stands, as far as it stands before too."""
        found = pattern.match(self.line)
        name = found[1] if found else self.name
        for place in range(self.number - 1, 0, -1):
            match = pattern.match(self.lines[place - 1])
            if match and match[1] == name:
                return name, f" (lines {place} and {self.number})"
        return name, ""


def _table_twice(slip: _Slip) -> str:
    name, places = slip.twice(_HEADER)
    return f"[{name}] is there twice{places}: join them"


def _key_twice(slip: _Slip) -> str:
    name, places = slip.twice(_KEY)
    return f"{name} is there twice{places}: remove one of them"


def _bad_value(slip: _Slip) -> str:
    if not slip.equals:
        return ""
    if slip.value.lower() in {"true", "false"}:
        return f"{slip.value} is not a value: write {slip.value.lower()}, in small letters"
    if not slip.value:
        return f"the value of {slip.name} is missing"
    return f"a text needs quotes: {_quoted(slip)}" if _WORD.fullmatch(slip.value) else ""


def _bad_name(slip: _Slip) -> str:
    if not slip.equals:
        return (
            "write = instead of :"
            if ":" in slip.line
            else "= and a value are missing after the name"
        )
    words = slip.name.split()
    if len(words) > 1:
        return f'a name with a space needs quotes: write "{slip.name}" = ..., or {"_".join(words)}'
    return f'a name with other signs than letters, digits, _ and - needs quotes: write "{slip.name}" = ...'


def _open_text(_slip: _Slip) -> str:
    return "the closing quote is missing"


def _too_much(slip: _Slip) -> str:
    if not slip.equals or not slip.value[:1].isdigit():
        return ""
    return (
        f"one value and nothing else may follow {slip.name} =; a text needs quotes: {_quoted(slip)}"
    )


def _quoted(slip: _Slip) -> str:
    return f'write {slip.name} = "{slip.value}"'


_SLIPS: Mapping[str, Callable[[_Slip], str]] = MappingProxyType(
    {
        "Cannot declare": _table_twice,
        "Cannot overwrite": _key_twice,
        "Cannot mutate": _key_twice,
        "Invalid value": _bad_value,
        "Expected '=' after a key": _bad_name,
        "Invalid initial character for a key part": _bad_name,
        "Unterminated string": _open_text,
        "Illegal character '\\n'": _open_text,
        "Expected newline or end of document": _too_much,
    }
)
"""What tomllib's sentences begin with, and what says the same in other words, or nothing if it does not know."""


def explained(reason: str, lines: Sequence[str], number: int) -> str:
    """What is wrong with a line.

    Args:
        reason: What tomllib says.
        lines: The file.
        number: The number of the line, from 1.

    Returns:
        The reason in other words, or the same as the rest of a sentence where none are known.
    """
    for beginning, explain in _SLIPS.items():
        if reason.startswith(beginning) and (sentence := explain(_Slip(lines, number))):
            return sentence
    return f"{reason[:1].lower()}{reason[1:]}"
