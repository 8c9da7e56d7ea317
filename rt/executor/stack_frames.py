"""Which frames and files belong to team code, and which to rt or a library."""

import os
import sys
import traceback
from pathlib import Path

FRAMES_SHOWN = 10
"""How many frames of team code a logged traceback has at most."""

_OWN = str(Path(__file__).parents[1])
_LIBRARIES = ("site-packages", "dist-packages")


def is_team_file(filename: str, folder: str) -> bool:
    """Return whether a file is in the folder of the team code, and not part of rt or a library."""
    if not filename.startswith(folder + os.sep):
        return False
    if not {*_LIBRARIES}.isdisjoint(Path(filename[len(folder) :]).parts):
        return False
    # A folder inside Python's own prefix still counts as team code.
    return not any(
        filename.startswith(other + os.sep) and not f"{folder}{os.sep}".startswith(other + os.sep)
        for other in (_OWN, sys.prefix)
    )


def involves_team_code(error: BaseException, folder: str) -> bool:
    """Return whether an error passed through team code.

    Args:
        error: The error.
        folder: The folder of the team code.
    """
    return any(
        is_team_file(frame.f_code.co_filename, folder)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def where(error: BaseException, path: Path) -> tuple[str, int]:
    """Return the file and line of the innermost frame of team code in a traceback."""
    frames = _frames(error, path)
    if not frames:
        return str(path), 0
    return frames[-1].filename, frames[-1].lineno or 0


def trace(error: BaseException, path: Path) -> list[str]:
    """Return the frames of team code in a traceback as lines of text, outermost first."""
    frames = _frames(error, path)[-FRAMES_SHOWN:]
    return [f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames]


def _frames(error: BaseException, path: Path) -> list[traceback.FrameSummary]:
    folder = str(path.parent)
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if is_team_file(frame.filename, folder)
    ]
