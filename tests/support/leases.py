"""Leases as held by commanders in tests."""

from rt.buffer import Lease


class LeaseClock:
    """A clock of leases that a test sets.

    Attributes:
        now: The time in ns.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = round(now * 1e9)

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * 1e9)


def keep(lease: Lease) -> bool:
    """Renew a lease or begin another one.

    Returns:
        Whether another one began, so that the write event has to be signalled.
    """
    return not lease.renew() and lease.begin()
