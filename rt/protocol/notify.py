"""The datagrams of sd_notify: how a process says that it is ready, alive or about to stop.

Pure: bytes to a `Notice` and back. One datagram is a list of ``KEY=VALUE`` lines; the format and
the meaning of the keys are those of sd_notify(3), so that any program in any language may be a
child, and systemd may be our parent.

The rule of this module: a datagram comes from a program that we do not control, so `parse` never
raises. What it does not understand it leaves out, and what it keeps is bounded.
"""

import msgspec

MAX_DATAGRAM = 4096
"""The longest datagram that is looked at, in bytes; what is beyond is cut off."""

MAX_STATUS = 256
"""The longest status text that is kept, in characters."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What one datagram says.

    Attributes:
        ready: The process has started up (``READY=1``).
        stopping: It has begun to end by itself (``STOPPING=1``).
        watchdog: It is alive (``WATCHDOG=1``).
        trouble: It asks to be treated as if its watchdog had run out (``WATCHDOG=trigger``).
        status: One line for a person about what it does (``STATUS=``), or None.
        errno: The number of the error that it fails with (``ERRNO=``), or None.
        mainpid: The process that does the work when it is not the one that was started
            (``MAINPID=``), or None.
        extend: It needs this many more seconds to start or to stop (``EXTEND_TIMEOUT_USEC=``), or
            None.
    """

    ready: bool = False
    stopping: bool = False
    watchdog: bool = False
    trouble: bool = False
    status: str | None = None
    errno: int | None = None
    mainpid: int | None = None
    extend: float | None = None


def parse(datagram: bytes) -> Notice:
    """Read a datagram.

    Args:
        datagram: At most `MAX_DATAGRAM` bytes are looked at; invalid UTF-8 is replaced.

    Returns:
        What it says; of a key that occurs twice, the last one counts. A datagram without anything
        that is understood is an empty notice.
    """
    fields: dict[str, str] = {}
    for line in datagram[:MAX_DATAGRAM].decode("utf-8", "replace").split("\n"):
        key, separator, value = line.partition("=")
        if separator:
            fields[key] = value
    extend = _natural(fields.get("EXTEND_TIMEOUT_USEC"))
    status = fields.get("STATUS")
    return Notice(
        ready=fields.get("READY") == "1",
        stopping=fields.get("STOPPING") == "1",
        watchdog=fields.get("WATCHDOG") == "1",
        trouble=fields.get("WATCHDOG") == "trigger",
        status=None if status is None else status[:MAX_STATUS],
        errno=_natural(fields.get("ERRNO")),
        mainpid=_natural(fields.get("MAINPID")),
        extend=None if extend is None else extend / 1e6,
    )


def format(  # noqa: A001 - the counterpart of parse; it is called as notify.format
    *,
    ready: bool = False,
    stopping: bool = False,
    watchdog: bool = False,
    trouble: bool = False,
    status: str | None = None,
    errno: int | None = None,
    mainpid: int | None = None,
    extend: float | None = None,
) -> bytes:
    """Write a datagram; the arguments are the attributes of `Notice`.

    A status is cut to `MAX_STATUS` characters and its line breaks become spaces, because a line
    break begins the next key.
    """
    lines: list[str] = []
    if ready:
        lines.append("READY=1")
    if stopping:
        lines.append("STOPPING=1")
    if trouble or watchdog:
        lines.append("WATCHDOG=trigger" if trouble else "WATCHDOG=1")
    if status is not None:
        lines.append("STATUS=" + status[:MAX_STATUS].replace("\n", " "))
    if errno is not None:
        lines.append(f"ERRNO={errno}")
    if mainpid is not None:
        lines.append(f"MAINPID={mainpid}")
    if extend is not None:
        lines.append(f"EXTEND_TIMEOUT_USEC={round(extend * 1e6)}")
    return "\n".join(lines).encode("utf-8", "replace")


def _natural(text: str | None) -> int | None:
    # int() alone would take "1_0", "-1", "²" and a million digits.
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return int(text)
