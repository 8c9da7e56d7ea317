"""The subscriptions to one device, permanent or for a session. Pure.

A subscription is permanent, or belongs to a session (see `rt.buffer.session`) and ends with it.

Invariant: the last subscription is current. When a session ends, for whatever reason, the
    subscription without it is current again. A permanent subscription ends those of all sessions.
"""

from collections.abc import Callable

from rt.protocol.message import SubReq


class Subscriptions:
    """The subscriptions to one device; those of sessions in the order in which they were made."""

    def __init__(self) -> None:
        self._permanent: SubReq | None = None
        self._by_session: dict[int, SubReq] = {}

    @property
    def current(self) -> SubReq | None:
        """The current subscription; None for that of the catalog."""
        return next(reversed(self._by_session.values()), self._permanent)

    def add(self, request: SubReq, session: int | None = None) -> None:
        """Make this subscription current, permanently or for a session.

        A session has at most one.
        """
        if session is None:
            self.clear()
            self._permanent = request
        else:
            self._by_session.pop(session, None)
            self._by_session[session] = request

    def end(self, is_over: Callable[[int], bool]) -> bool:
        """Forget those of ended sessions; return whether another subscription is current now."""
        before = self.current
        for session in [session for session in self._by_session if is_over(session)]:
            del self._by_session[session]
        return self.current != before

    def clear(self) -> None:
        """Return to the catalog's subscription, as for another device."""
        self._permanent = None
        self._by_session.clear()
