"""Why a serial port cannot be opened, and what to do about it, in words for a person.

Everything is read from the system's own files; nothing is opened, and no rights are needed, but
what /proc hides from this user stays unknown.
"""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

_USUAL_GROUP = "dialout"


class Holder(msgspec.Struct, frozen=True):
    """A process that has a port open.

    Attributes:
        pid: Its number.
        name: What the kernel calls it, at most 15 characters.
    """

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def holders(port: str, proc: Path = Path("/proc")) -> Iterator[Holder | None]:
    """Look for the processes, other than this one, that have a port open.

    Args:
        port: A path of the port.
        proc: Where procfs is mounted.

    Yields:
        One of them, or None after each process that is not, so that a caller with something else to
        do can do it in between.
    """
    device = os.path.realpath(port)
    try:
        pids = sorted(int(each) for each in os.listdir(proc) if each.isdecimal())  # noqa: PTH208 - names, not paths
    except OSError:  # no procfs
        return
    for pid in pids:
        holder = None
        if pid != os.getpid():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if _has_open(proc / str(pid) / "fd", device):
                    holder = Holder(
                        pid, (proc / str(pid) / "comm").read_text(errors="replace").strip()
                    )
        yield holder


def held_remedy(port: str, holder: Holder | None) -> str:
    """Return what to do about a port that another program has open."""
    if holder is not None:
        return f"{holder} has it open: close that program, or `kill {holder.pid}`"
    return (
        f"close the other program that has it open: a serial monitor, the Arduino IDE, ModemManager, another robot; "
        f"`sudo fuser -v {port}` names it"
    )


def access_remedy(port: str) -> str:
    """Return what to do so that this process's user may use a port: the group that owns it, and the exact command."""
    user = _user()
    try:
        status = Path(port).stat()
    except OSError as error:
        return f"{port} cannot be looked at: {error.strerror}; its directory has to be open to user {user}"
    group = _group(status.st_gid)
    if not status.st_mode & (stat.S_IRGRP | stat.S_IWGRP):
        return (
            f"it belongs to user {_owner(status.st_uid)} alone: "
            f"run `sudo chgrp {_USUAL_GROUP} {port} && sudo chmod g+rw {port}` for now, and install the udev rules for good; "
            f"then `{_join(_USUAL_GROUP, user)}`"
        )
    if group == "root":
        return (
            f"it belongs to the group root: run `sudo chgrp {_USUAL_GROUP} {port}` for now, and install the udev rules "
            f"for good; then `{_join(_USUAL_GROUP, user)}`"
        )
    if status.st_gid in os.getgroups():
        return f"user {user} is in the group {group} that owns it, which may not read and write it: run `sudo chmod g+rw {port}`"
    with contextlib.suppress(KeyError):
        if user in grp.getgrgid(status.st_gid).gr_mem:
            return (
                f"it belongs to the group {group}, which user {user} is in since the last login: log out and in again, "
                "and restart rt"
            )
    return f"it belongs to the group {group}: run `{_join(group, user)}`, then log out and in again"


def _has_open(fds: Path, device: str) -> bool:
    for fd in os.listdir(fds):  # noqa: PTH208 - names, not paths
        with contextlib.suppress(OSError):  # closed in the meantime
            if os.readlink(f"{fds}/{fd}") == device:  # noqa: PTH115 - no path is wanted
                return True
    return False


def _join(group: str, user: str) -> str:
    return f"sudo usermod -aG {group} {user}"


def _user() -> str:
    return _owner(os.geteuid())


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
