"""What is the team's code, and what is rt's or a library's: by the file that it stands in."""

import os
import sys
import traceback
from pathlib import Path

FRAMES_SHOWN = 10
"""The most lines of a traceback through the team's code that are logged."""

_OWN = str(Path(__file__).parents[1])
_LIBRARIES = ("site-packages", "dist-packages")


def is_team_file(filename: str, folder: str) -> bool:
    """Whether a file stands in the team's folder, and is no library and no part of rt that stands there too."""
    if not filename.startswith(folder + os.sep):
        return False
    if not {*_LIBRARIES}.isdisjoint(Path(filename[len(folder) :]).parts):
        return False
    # A folder that itself stands within Python's own is the team's nevertheless.
    return not any(
        filename.startswith(other + os.sep) and not f"{folder}{os.sep}".startswith(other + os.sep)
        for other in (_OWN, sys.prefix)
    )


def involves_team_code(error: BaseException, folder: str) -> bool:
    """Whether an error passed through code of the team, whose folder is given."""
    return any(
        is_team_file(frame.f_code.co_filename, folder)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def where(error: BaseException, path: Path) -> tuple[str, int]:
    """The file and line of the innermost frame of the team's code that an error passed through."""
    frames = _frames(error, path)
    if not frames:
        return str(path), 0
    return frames[-1].filename, frames[-1].lineno or 0


def trace(error: BaseException, path: Path) -> list[str]:
    """The lines of the team's code that an error passed through, outermost first."""
    frames = _frames(error, path)[-FRAMES_SHOWN:]
    return [f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames]


def _frames(error: BaseException, path: Path) -> list[traceback.FrameSummary]:
    folder = str(path.parent)
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if is_team_file(frame.filename, folder)
    ]
