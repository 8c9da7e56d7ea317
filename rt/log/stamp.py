"""Time stamps of events."""

import time

_second: tuple[int, str] = (-1, "")


def now() -> str:
    """Return the current time as ISO 8601 in UTC, with microseconds.

    The part up to the seconds is cached, because events come in bursts.
    """
    global _second  # noqa: PLW0603 - replaced atomically, so threads need no lock
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    second = _second
    if second[0] != seconds:
        _second = second = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return f"{second[1]}.{nanoseconds // 1000:06d}Z"
