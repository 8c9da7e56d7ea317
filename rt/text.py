"""Text for messages: suggestions for mistyped names, short forms of values, places in TOML.

Invariant: the cost is bounded for names and values of any length and number, because callers choose
them.
"""

import heapq
import itertools
import re
import reprlib
from collections.abc import Iterable

WORD_MAX = 64
"""Characters of a name that a message quotes."""

COMPARED_MAX = 40
"""Characters of a name that are compared."""

WORDS_MAX = 256
"""How many known names of a similar length are compared; the others are never suggested."""

LISTED_MAX = 20
"""How many known names a message lists."""

_MAX_NAMES = 2048
_CANDIDATES = 4

_TOML_PLACE = re.compile(
    r"(?P<reason>.*?) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)",
    re.DOTALL,
)

_reprs = reprlib.Repr()
_reprs.maxstring = _reprs.maxother = WORD_MAX


def closest(word: str, words: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the most similar of `words`, ignoring case; None if no ratio reaches `cutoff` (0..1).

    >>> closest("left_moter", ["left_motor", "arm"])
    'left_motor'
    """
    import difflib  # only a wrong name needs it, and start-up time counts

    compared = word[:COMPARED_MAX].lower()
    matcher = difflib.SequenceMatcher(b=compared)
    near: list[tuple[float, str]] = []
    similar = (
        each
        for each in itertools.islice(words, _MAX_NAMES)
        if _max_ratio(len(compared), len(each)) >= cutoff
    )
    for each in itertools.islice(similar, WORDS_MAX):
        matcher.set_seq1(each[:COMPARED_MAX].lower())
        if (ratio := matcher.quick_ratio()) >= cutoff:
            near.append((ratio, each))
    best: tuple[float, str] | None = None
    for _, each in heapq.nlargest(_CANDIDATES, near):
        matcher.set_seq1(each[:COMPARED_MAX].lower())
        if (ratio := matcher.ratio()) >= cutoff and (best is None or ratio > best[0]):
            best = ratio, each
    return best and best[1]


def nearest(word: str, words: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Return "; did you mean ...?" for the most similar of `words`, or "" if `closest` has none."""
    found = closest(word, words, cutoff=cutoff)
    return f"; did you mean {found}?" if found is not None else ""


def listed(words: Iterable[str]) -> str:
    """Return the first names of a list, separated by commas, and how many more there are.

    >>> listed(["a", "b"])
    'a, b'
    """
    names = list(words)
    more = f" and {len(names) - LISTED_MAX} more" if len(names) > LISTED_MAX else ""
    return ", ".join(names[:LISTED_MAX]) + more


def clip(text: str, most: int = WORD_MAX) -> str:
    r"""Return at most `most` characters of a text, unquoted, with unprintable ones escaped.

    >>> clip("pong"), clip("a" * 100, 5), clip("a\x1b[2J")
    ('pong', 'aaaaa...', 'a\\x1b[2J')
    """
    clipped = text[:most]
    if not clipped.isprintable():
        clipped = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in clipped)
    return clipped if len(text) <= most else f"{clipped}..."


def quote(value: object) -> str:
    """Return a short printable `repr` of any plain value.

    >>> quote("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    if isinstance(value, str):
        value = value[: 2 * WORD_MAX]
    elif isinstance(value, bytes):
        value = value[:WORD_MAX]
    return clip(_reprs.repr(value), 4 * WORD_MAX)


def shown(value: object, most: int = 100) -> str:
    """Return a value as short text on one line, booleans and lists as in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return clip(repr(list(value) if isinstance(value, tuple) else value), most)
    except ValueError:
        return "a number of thousands of digits"


def toml_error(error: ValueError | RecursionError, text: str) -> tuple[str, int, int]:
    """Return the reason, line and column of an error of `tomllib`; 0 for an unknown place."""
    message = str(error)
    if isinstance(error, RecursionError):
        return "brackets are nested too deeply", 0, 0
    if (found := _TOML_PLACE.fullmatch(message)) is None:
        return "a number has too many digits" if "digits" in message else message, 0, 0
    if found["line"]:
        return found["reason"], int(found["line"]), int(found["column"])
    line = text.rstrip().count("\n") + 1
    return found["reason"], line, len(text.split("\n")[line - 1].rstrip("\r")) + 1


def _max_ratio(one: int, other: int) -> float:
    """Return the largest possible similarity of two texts with these lengths."""
    other = min(other, COMPARED_MAX)
    return 2 * min(one, other) / (one + other) if one + other else 1.0
