"""What Python says of code that it cannot parse, in words that name the remedy too.

The rule of this module is that of ``wording``: what is not in here is clear as it is.
"""

import re

NOT_TEXT = "there are bytes here that are no text: save the file with the encoding UTF-8"
"""The sentence for bytes of another encoding, and for null characters."""

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
    (
        "unknown encoding",
        "leave out the line with `coding`, and save the file with the encoding UTF-8",
    ),
    (
        "encoding problem",
        "leave out the line with `coding`, and save the file with the encoding UTF-8",
    ),
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
        "leave out the word before the name",
    ),
    (re.compile(r"^\s*function\b"), "write `def` instead of `function`"),
)
"""What other languages write."""
_QUOTES = frozenset("\u201c\u201d\u201e\u2018\u2019\u201a\xab\xbb\xb4")
"""What word processors write for quotes."""


def sentence(said: str, line: str = "") -> str:
    """Python's sentence about a syntax error, with the remedy where it has none.

    Args:
        said: The sentence.
        line: The line that it is about.

    Examples:
        >>> sentence("unexpected indent")
        'unexpected indent: begin the line exactly below the one above'
        >>> sentence("expected ':'")
        "expected ':'"
        >>> sentence("invalid syntax", "if x && y:")
        'invalid syntax: write `and` instead of `&&`'
    """
    if said.startswith("invalid character"):
        is_quote = said.partition("'")[2][:1] in _QUOTES
        remedy = "write straight quotes, \" or '" if is_quote else "type it anew on the keyboard"
    elif ". " in said or "?" in said:
        remedy = ""  # Python has a guess of its own, as "Perhaps you forgot a comma?"
    else:
        foreign = _FOREIGN if said in {"invalid syntax", "expected ':'"} else ()
        remedies = [each for pattern, each in foreign if pattern.search(line)]
        remedies += [each for start, each in _REMEDIES if said.startswith(start)]
        remedy = next(iter(remedies), "")
    return f"{said}: {remedy}" if remedy else said
