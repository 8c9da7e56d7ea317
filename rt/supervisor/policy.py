"""The time limits and the restart policy of a child."""

from typing import Literal

import msgspec


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The time limits and the restart policy of a child.

    With the defaults, a child that always fails is restarted every 2.5 to 5 s without end, because
    a robot in a match must keep trying. `max_restarts` is reached only with a smaller backoff.

    Attributes:
        ready_timeout: Time from the start until ready (s).
        stop_timeout: Time between SIGTERM or SIGABRT and SIGKILL (s).
        watchdog: Longest time between two watchdog notices of a ready child (s), or None.
        restart: ``permanent``: always; ``transient``: unless it exits with code 0; ``temporary``:
            never.
        fast_restarts: How many restarts in a row happen at once, before any backoff.
        backoff: Time before the first restart after these (s); doubles with each further one.
            Jitter subtracts up to half.
        backoff_cap: The longest backoff (s).
        healthy_after: Time in state ready after which fast restarts and the backoff are reset (s).
        max_restarts: The child fails when it exits unexpectedly more often than this within
            ``restart_window``.
        restart_window: The period for ``max_restarts`` (s).
        gives_up: Whether the child can fail. If not, it is restarted regardless of `max_restarts`
            and of errors that another attempt cannot resolve.
    """

    ready_timeout: float = 10.0
    stop_timeout: float = 2.0
    watchdog: float | None = None
    restart: Literal["permanent", "transient", "temporary"] = "permanent"
    fast_restarts: int = 0
    backoff: float = 0.1
    backoff_cap: float = 5.0
    healthy_after: float = 2.0
    max_restarts: int = 30
    restart_window: float = 60.0
    gives_up: bool = True
