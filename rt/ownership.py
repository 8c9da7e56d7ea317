"""The owners of files, and the detection of files that another user placed in advance.

Invariant: only root and the user of this process are trusted. In a directory in which every user
may create files, such as /tmp, rt uses no file of another user.
"""

import os
import pwd
import stat
from pathlib import Path


def foreign_owner(path: Path) -> int | None:
    """Return the owner of a file (of a link itself) if it is neither root nor this user.

    Returns:
        The uid, or None; also None if the file does not exist.
    """
    try:
        uid = path.lstat().st_uid
    except OSError:
        return None
    return None if uid in {0, os.geteuid()} else uid


def planted_by(path: Path) -> int | None:
    """Return another user who created a path or a parent of it where every user may create files.

    Returns:
        The uid, or None.
    """
    path = path.absolute()
    for each in (path, *path.parents[:-1]):
        uid = foreign_owner(each)
        if uid is not None and _is_shared(each.parent):
            return uid
    return None


def user(uid: int) -> str:
    """Return a description of a user: the uid, and the name if there is one."""
    try:
        return f"user {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"user {uid}"


def _is_shared(directory: Path) -> bool:
    try:
        return bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False
