"""Where in a catalog's text a table or a parameter stands, for messages.

`tomllib` tells values without places, so the places are looked for in the text: good enough to find
the line, and never wrong about anything but the line.
"""

import re


def line_of(text: str, table: str, param: str | None = None) -> int | None:
    """The line of a table's header, or of a parameter's name below it; None where neither is found."""
    name = rf"[\"']?{re.escape(table)}[\"']?"
    start = re.search(
        rf"^[ \t]*(?:\[\[?[ \t]*{name}[ \t]*[\].]|{name}[ \t]*[.=])", text, re.MULTILINE
    )
    if start is None:
        return None
    place = start.start()
    if param is not None:
        other = re.compile(
            rf"^[ \t]*\[\[?[ \t]*(?!{name}[ \t]*[\].])[\w\"'-]", re.MULTILINE
        ).search(text, start.end())
        end = other.start() if other else len(text)
        found = re.compile(rf"\bname[\"']?[ \t]*=[ \t]*[\"']{re.escape(param)}[\"']").search(
            text, place, end
        )
        place = found.start() if found else place
    return text.count("\n", 0, place) + 1
