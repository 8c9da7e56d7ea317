"""Owners of files, and files that another user has placed in advance.

Invariant: root and the user that this process runs as are trusted. In a directory where every user
may make files, as /tmp, what another user has made is never used in place of what rt expects there.
"""

import os
import pwd
import stat
from pathlib import Path


def foreign_owner(path: Path) -> int | None:
    """The user that a file belongs to, a link itself, if that is neither root nor this user; None too if there is no file."""
    try:
        uid = path.lstat().st_uid
    except OSError:
        return None
    return None if uid in {0, os.geteuid()} else uid


def planted_by(path: Path) -> int | None:
    """The other user who has made a file, or a directory or link on the way to it, where every user may make files; or None."""
    path = path.absolute()
    for each in (path, *path.parents[:-1]):
        uid = foreign_owner(each)
        if uid is not None and _is_shared(each.parent):
            return uid
    return None


def user(uid: int) -> str:
    """A user for a sentence: the number, and the name if there is one."""
    try:
        return f"user {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"user {uid}"


def _is_shared(directory: Path) -> bool:
    try:
        return bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False
