"""What one device is asked to report, and by whom. Pure.

A subscription is made for good, or by a visitor (see `rt.buffer.session`) for as long as it stays.
The rule of this module: the last one counts; when a visitor leaves, however it ends, what counted
without it counts again; and one for good ends all of visitors.
"""

from collections.abc import Callable

from rt.protocol.message import SubReq


class Subscriptions:
    """The subscriptions of one device; those of visitors in the order in which they were made."""

    def __init__(self) -> None:
        self._permanent: SubReq | None = None
        self._by_session: dict[int, SubReq] = {}

    @property
    def current(self) -> SubReq | None:
        """The one that counts; None for that of the catalog."""
        return next(reversed(self._by_session.values()), self._permanent)

    def add(self, request: SubReq, visit: int | None = None) -> None:
        """Let this one count, for good or as long as a visit lasts; a visit has at most one."""
        if visit is None:
            self.clear()
            self._permanent = request
        else:
            self._by_session.pop(visit, None)
            self._by_session[visit] = request

    def end(self, is_over: Callable[[int], bool]) -> bool:
        """Forget those of visits that are over; whether another one counts now."""
        before = self.current
        for visit in [visit for visit in self._by_session if is_over(visit)]:
            del self._by_session[visit]
        return self.current != before

    def clear(self) -> None:
        """Go by the catalog again, as with another device."""
        self._permanent = None
        self._by_session.clear()
