"""The time stamp of an event."""

import time

_second: tuple[int, str] = (-1, "")


def now() -> str:
    """The present as ISO 8601 in UTC, with microseconds.

    Events come in bursts: what is the same for all of one second is made once.
    """
    global _second  # noqa: PLW0603 - one value, replaced whole, so that threads need no lock
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    second = _second
    if second[0] != seconds:
        _second = second = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return f"{second[1]}.{nanoseconds // 1000:06d}Z"
