"""Line numbers of tables and parameters in the text of a catalog, for error messages.

`tomllib` returns values without positions, so a search in the text finds them. At worst the line is
wrong.
"""

import re


def line_of(text: str, table: str, param: str | None = None) -> int | None:
    """Return the line of a table, or of a parameter in it; None if the table is not found."""
    name = rf"[\"']?{re.escape(table)}[\"']?"
    start = re.search(
        rf"^[ \t]*(?:\[\[?[ \t]*{name}[ \t]*[\].]|{name}[ \t]*[.=])", text, re.MULTILINE
    )
    if start is None:
        return None
    position = start.start()
    if param is not None:
        other = re.compile(
            rf"^[ \t]*\[\[?[ \t]*(?!{name}[ \t]*[\].])[\w\"'-]", re.MULTILINE
        ).search(text, start.end())
        end = other.start() if other else len(text)
        found = re.compile(rf"\bname[\"']?[ \t]*=[ \t]*[\"']{re.escape(param)}[\"']").search(
            text, position, end
        )
        position = found.start() if found else position
    return text.count("\n", 0, position) + 1
