"""Explanations of syntax errors in rt.toml for people who do not know TOML."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*([^=#]+?)\s*=")
_WORD = re.compile(r"[^\W\d][^\"'\[\]{},]*|[/.~].*")


class _BadLine:
    """A line with an error.

    Args:
        lines: Lines of the file.
        number: Number of the line, from 1.
    """

    def __init__(self, lines: Sequence[str], number: int) -> None:
        self.lines = lines
        self.number = number
        self.line = lines[number - 1] if 0 < number <= len(lines) else ""
        before, self.equals, after = self.line.partition("=")
        self.name = before.strip()
        self.value = re.sub(r"\s+#.*", "", after).strip()

    def duplicate(self, pattern: re.Pattern[str]) -> tuple[str, str]:
        """Return the name that a pattern finds in this line, and the numbers of both lines."""
        found = pattern.match(self.line)
        name = found[1] if found else self.name
        for place in range(self.number - 1, 0, -1):
            match = pattern.match(self.lines[place - 1])
            if match and match[1] == name:
                return name, f" (lines {place} and {self.number})"
        return name, ""


def _duplicate_table(bad: _BadLine) -> str:
    name, places = bad.duplicate(_HEADER)
    return f"[{name}] is defined twice{places}; merge the two tables"


def _duplicate_key(bad: _BadLine) -> str:
    name, places = bad.duplicate(_KEY)
    return f"{name} is defined twice{places}; remove one of them"


def _bad_value(bad: _BadLine) -> str:
    if not bad.equals:
        return ""
    if bad.value.lower() in {"true", "false"}:
        return f"{bad.value} is not a value; write {bad.value.lower()} in lower case"
    if not bad.value:
        return f"the value of {bad.name} is missing"
    return f"text needs quotes; {_quoted(bad)}" if _WORD.fullmatch(bad.value) else ""


def _bad_name(bad: _BadLine) -> str:
    if not bad.equals:
        return (
            "write = instead of :"
            if ":" in bad.line
            else "= and a value are missing after the name"
        )
    words = bad.name.split()
    if len(words) > 1:
        return f'a name with a space needs quotes; write "{bad.name}" = ..., or {"_".join(words)}'
    return (
        "a name with characters other than letters, digits, _ and - needs quotes;"
        f' write "{bad.name}" = ...'
    )


def _trailing_text(bad: _BadLine) -> str:
    if not bad.equals or not bad.value[:1].isdigit():
        return ""
    return f"only one value may follow {bad.name} =; if it is text, {_quoted(bad)}"


def _quoted(bad: _BadLine) -> str:
    return f'write {bad.name} = "{bad.value}"'


_EXPLANATIONS: Mapping[str, Callable[[_BadLine], str]] = MappingProxyType(
    {
        "Cannot declare": _duplicate_table,
        "Cannot overwrite": _duplicate_key,
        "Cannot mutate": _duplicate_key,
        "Invalid value": _bad_value,
        "Expected '=' after a key": _bad_name,
        "Invalid initial character for a key part": _bad_name,
        "Unterminated string": lambda _bad: "the closing quote is missing",
        "Illegal character '\\n'": lambda _bad: "the closing quote is missing",
        "Expected newline or end of document": _trailing_text,
    }
)
"""Beginnings of tomllib's messages, each with a function that returns an explanation or ""."""


def explained(reason: str, lines: Sequence[str], number: int) -> str:
    """Return what is wrong with a line.

    Args:
        reason: Message of tomllib.
        lines: Lines of the file.
        number: Number of the line, from 1.

    Returns:
        An explanation, or the message of tomllib in lower case.
    """
    for beginning, explain in _EXPLANATIONS.items():
        if reason.startswith(beginning) and (sentence := explain(_BadLine(lines, number))):
            return sentence
    return f"{reason[:1].lower()}{reason[1:]}"
