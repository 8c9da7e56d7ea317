"""What commanders of the tests do with their leases."""

from rt.buffer import Lease


def keep(lease: Lease) -> bool:
    """Renew a lease, or begin another; True if that began another, so that the device process is to be rung."""
    return not lease.renew() and lease.begin()
