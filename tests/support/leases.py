"""Leases as held by commanders in tests."""

from rt.buffer import Lease


def keep(lease: Lease) -> bool:
    """Renew a lease or begin another one.

    Returns:
        Whether another one began, so that the write event has to be signalled.
    """
    return not lease.renew() and lease.begin()
