"""The owner of a TCP or UDP port, read from /proc.

Source: proc(5), /proc/net/tcp: the second column is the local address with the port in hexadecimal,
the tenth is the inode that a link in /proc/PID/fd names.
"""

from collections.abc import Iterator
from pathlib import Path

_LISTENING = "0A"
_PROC = Path("/proc")


def owner_of(protocol: str, port: int) -> str:
    """Return the owner of a port as "process 123 (name)", if this user may see it.

    Args:
        protocol: "tcp" or "udp".
        port: 1..65535.
    """
    links = {f"socket:[{inode}]" for inode in _inodes(protocol, port)}
    for directory in _PROC.glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in links for link in (directory / "fd").iterdir()):
                return f"process {directory.name} ({_command(directory)})"
        except OSError:  # it has ended, or belongs to another user
            continue
    return "a process of another user"


def _inodes(protocol: str, port: int) -> Iterator[str]:
    for table in (protocol, f"{protocol}6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            listens = protocol == "udp" or columns[3] == _LISTENING
            if listens and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _command(directory: Path) -> str:
    words = (directory / "cmdline").read_bytes().split(b"\0")
    return b" ".join(words).decode(errors="replace").strip()[:60]
