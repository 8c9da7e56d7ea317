"""Python's messages about syntax errors, with a remedy added where they have none."""

import re

NOT_TEXT = "these bytes are not text: save the file as UTF-8"
"""The message for bytes of another encoding and for null characters."""

_REMEDIES: tuple[tuple[str, str], ...] = (
    ("'await' outside", "write `async def` instead of `def` before the function's name"),
    ("inconsistent use of tabs", "indent every line with spaces, 4 for each level"),
    ("unindent does not match", "begin the line exactly below one of those above"),
    ("unexpected indent", "begin the line exactly below the one above"),
    ("unterminated string literal", "close the text with a quote"),
    ("unterminated triple-quoted string literal", "close the text with three quotes"),
    (
        "invalid syntax",
        "look for a missing bracket, quote, comma or colon here and at the end of the line above",
    ),
    ("unknown encoding", "remove the line with `coding`, and save the file as UTF-8"),
    ("encoding problem", "remove the line with `coding`, and save the file as UTF-8"),
)
_FOREIGN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"&&"), "write `and` instead of `&&`"),
    (re.compile(r"\|\|"), "write `or` instead of `||`"),
    (re.compile(r"\belse\s*if\b"), "write `elif` instead of `else if`"),
    (re.compile(r"\w\+\+"), "write `+= 1` instead of `++`"),
    (re.compile(r"\w--"), "write `-= 1` instead of `--`"),
    (re.compile(r"!(?!=)"), "write `not` instead of `!`"),
    (
        re.compile(r"^\s*(var|let|const|int|float|double|bool)\s+\w+\s*="),
        "remove the word before the name",
    ),
    (re.compile(r"^\s*function\b"), "write `def` instead of `function`"),
)
"""Syntax of other languages."""
_QUOTES = frozenset("\u201c\u201d\u201e\u2018\u2019\u201a\xab\xbb\xb4")
"""Characters that word processors use for quotes."""


def explain(message: str, line: str = "") -> str:
    """Return Python's message about a syntax error, with a remedy if it has none.

    Args:
        message: Python's message.
        line: The line with the error.

    Examples:
        >>> explain("unexpected indent")
        'unexpected indent: begin the line exactly below the one above'
        >>> explain("expected ':'")
        "expected ':'"
        >>> explain("invalid syntax", "if x && y:")
        'invalid syntax: write `and` instead of `&&`'
    """
    if message.startswith("invalid character"):
        is_quote = message.partition("'")[2][:1] in _QUOTES
        remedy = "write straight quotes, \" or '" if is_quote else "type it anew on the keyboard"
    elif ". " in message or "?" in message:
        remedy = ""  # Python suggests a remedy itself, such as "Perhaps you forgot a comma?"
    else:
        foreign = _FOREIGN if message in {"invalid syntax", "expected ':'"} else ()
        remedies = [each for pattern, each in foreign if pattern.search(line)]
        remedies += [each for start, each in _REMEDIES if message.startswith(start)]
        remedy = next(iter(remedies), "")
    return f"{message}: {remedy}" if remedy else message
