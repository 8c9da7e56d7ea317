"""What Python says of code that it cannot parse, in words that name the remedy too.

The rule of this module is that of ``wording``: what is not in here is clear as it is.
"""

NO_TEXT = "there are bytes here that are no text: save the file with the encoding UTF-8"
"""The sentence for bytes of another encoding, and for null characters."""

_REMEDIES: tuple[tuple[str, str], ...] = (
    ("'await' outside", "write `async def` instead of `def` before the function's name"),
    ("inconsistent use of tabs", "indent every line with spaces, 4 for each level"),
    ("unindent does not match", "begin the line exactly below one of those above"),
    ("unexpected indent", "begin the line exactly below the one above"),
    ("unterminated string literal", "close the text with a quote"),
    ("unterminated triple-quoted string literal", "close the text with three quotes"),
    ("invalid syntax", "look for a missing bracket, quote, comma or colon here and at the end of the line above"),
    ("unknown encoding", "leave out the line with `coding`, and save the file with the encoding UTF-8"),
    ("encoding problem", "leave out the line with `coding`, and save the file with the encoding UTF-8"),
)
_QUOTES = frozenset("\u201c\u201d\u201e\u2018\u2019\u201a\xab\xbb\xb4")
"""What word processors write for quotes."""


def sentence(said: str) -> str:
    """Python's sentence about a syntax error, with the remedy where it has none.

    Examples:
        >>> sentence("unexpected indent")
        'unexpected indent: begin the line exactly below the one above'
        >>> sentence("expected ':'")
        "expected ':'"
    """
    if said.startswith("invalid character"):
        is_quote = said.partition("'")[2][:1] in _QUOTES
        remedy = "write straight quotes, \" or '" if is_quote else "type it anew on the keyboard"
        return f"{said}: {remedy}"
    if ". " in said or "?" in said:
        return said  # Python has a guess of its own, as "Perhaps you forgot a comma?"
    remedy = next((each for start, each in _REMEDIES if said.startswith(start)), "")
    return f"{said}: {remedy}" if remedy else said
