"""Explains why a serial port cannot be opened, and what to do about it.

Everything is read from the system's own files. Nothing is opened and no privileges are needed, but
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
        pid: Its process id.
        name: Its name according to the kernel, at most 15 characters.
    """

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def holders(port: str, proc: Path = Path("/proc")) -> Iterator[Holder | None]:
    """Find the other processes that have a port open.

    Args:
        port: A path of the port.
        proc: Where procfs is mounted.

    Yields:
        A holder, or None after each process that is not one, so that the caller can do other work
        in between.
    """
    device = os.path.realpath(port)
    try:
        names = os.listdir(proc)  # noqa: PTH208 - names, not paths
    except OSError:  # no procfs
        return
    pids = sorted(int(name) for name in names if name.isdecimal())
    for pid in pids:
        holder = None
        if pid != os.getpid():
            with contextlib.suppress(OSError):  # it ended, or belongs to another user
                if _has_open(proc / str(pid) / "fd", device):
                    holder = Holder(
                        pid, (proc / str(pid) / "comm").read_text(errors="replace").strip()
                    )
        yield holder


def held_remedy(port: str, holder: Holder | None) -> str:
    """Return what to do about a port that another program has open."""
    if holder is not None:
        return f"{holder} has it open: close that program or run `kill {holder.pid}`"
    return (
        "close the other program that has it open, such as a serial monitor, the Arduino IDE, "
        f"ModemManager or another robot; find it with `sudo fuser -v {port}`"
    )


def access_remedy(port: str) -> str:
    """Return what to do so that this process's user may use a port, with the exact command."""
    user = _owner(os.geteuid())
    try:
        status = Path(port).stat()
    except OSError as error:
        return f"cannot access {port}: {error.strerror}; user {user} needs access to its directory"
    group = _group(status.st_gid)
    if not status.st_mode & (stat.S_IRGRP | stat.S_IWGRP):
        return (
            f"only user {_owner(status.st_uid)} may use it: install the udev rules, or run "
            f"`sudo chgrp {_USUAL_GROUP} {port} && sudo chmod g+rw {port}` "
            "until it is plugged in again; "
            f"then run `{_join(_USUAL_GROUP, user)}`"
        )
    if group == "root":
        return (
            "it belongs to the group root: install the udev rules, or run "
            f"`sudo chgrp {_USUAL_GROUP} {port}` until it is plugged in again; "
            f"then run `{_join(_USUAL_GROUP, user)}`"
        )
    if status.st_gid in os.getgroups():
        return (
            f"its group {group}, which user {user} is in, may not read and write it: "
            f"run `sudo chmod g+rw {port}`"
        )
    with contextlib.suppress(KeyError):
        if user in grp.getgrgid(status.st_gid).gr_mem:
            return (
                f"user {user} was added to its group {group} after the last login: "
                "log out and in again, and restart rt"
            )
    return f"it belongs to the group {group}: run `{_join(group, user)}`, then log out and in again"


def _has_open(fds: Path, device: str) -> bool:
    for fd in os.listdir(fds):  # noqa: PTH208 - names, not paths
        with contextlib.suppress(OSError):  # closed in the meantime
            if os.readlink(f"{fds}/{fd}") == device:  # noqa: PTH115 - a string is needed
                return True
    return False


def _join(group: str, user: str) -> str:
    return f"sudo usermod -aG {group} {user}"


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
