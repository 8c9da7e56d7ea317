"""The datagrams of sd_notify: how a process reports that it is ready, alive or stopping.

A datagram is a list of ``KEY=VALUE`` lines. Format and keys are those of sd_notify(3), so that any
program can be a child of rt, and rt can be a child of systemd.

Invariant: `parse` never raises, because a datagram comes from a program that rt does not control.
    It ignores what it does not understand, and its results are bounded.
"""

import msgspec

MAX_DATAGRAM = 4096
"""The longest datagram (bytes); the rest is ignored."""

MAX_STATUS = 256
"""The longest status (characters)."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of one datagram.

    Attributes:
        ready: The process has started (``READY=1``).
        stopping: It is shutting down (``STOPPING=1``).
        watchdog: It pets its watchdog (``WATCHDOG=1``).
        trouble: It requests the handling of an expired watchdog (``WATCHDOG=trigger``).
        status: A line for people about its state (``STATUS=``), or None.
        errno: The error number with which it fails (``ERRNO=``), or None.
        mainpid: The main process, if that is not the process that was started (``MAINPID=``), or
            None.
        extend: The additional time (s) that it needs to start or to stop
            (``EXTEND_TIMEOUT_USEC=``), or None.
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
    """Parse a datagram.

    Args:
        datagram: At most `MAX_DATAGRAM` bytes are parsed; invalid UTF-8 is replaced.

    Returns:
        The contents. The last line of a repeated key counts. Without any known line the notice is
        empty.
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


def format(notice: Notice) -> bytes:  # noqa: A001 - the counterpart of parse
    """Return the datagram of a notice.

    The status is truncated to `MAX_STATUS` characters, and its line breaks become spaces, because a
    line break ends a value.
    """
    lines: list[str] = []
    if notice.ready:
        lines.append("READY=1")
    if notice.stopping:
        lines.append("STOPPING=1")
    if notice.trouble or notice.watchdog:
        lines.append("WATCHDOG=trigger" if notice.trouble else "WATCHDOG=1")
    if notice.status is not None:
        lines.append("STATUS=" + notice.status[:MAX_STATUS].replace("\n", " "))
    if notice.errno is not None:
        lines.append(f"ERRNO={notice.errno}")
    if notice.mainpid is not None:
        lines.append(f"MAINPID={notice.mainpid}")
    if notice.extend is not None:
        lines.append(f"EXTEND_TIMEOUT_USEC={round(notice.extend * 1e6)}")
    return "\n".join(lines).encode("utf-8", "replace")


def _natural(text: str | None) -> int | None:
    # int() alone would accept "1_0", "-1", "²" and a million digits.
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return int(text)
