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
        self._lasting: SubReq | None = None
        self._visits: dict[int, SubReq] = {}

    @property
    def present(self) -> SubReq | None:
        """The one that counts; None for that of the catalog."""
        return next(reversed(self._visits.values()), self._lasting)

    def add(self, request: SubReq, visit: int | None = None) -> None:
        """Let this one count, for good or as long as a visit lasts; a visit has at most one."""
        if visit is None:
            self.clear()
            self._lasting = request
        else:
            self._visits.pop(visit, None)
            self._visits[visit] = request

    def end(self, is_over: Callable[[int], bool]) -> bool:
        """Forget those of visits that are over; whether another one counts now."""
        before = self.present
        for visit in [visit for visit in self._visits if is_over(visit)]:
            del self._visits[visit]
        return self.present != before

    def clear(self) -> None:
        """Go by the catalog again, as with another device."""
        self._lasting = None
        self._visits.clear()
