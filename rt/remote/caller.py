"""The caller of the method that a service runs.

A service sets the caller before it runs a method; the method and its callees read it with `caller`.
"""

from contextvars import ContextVar

import msgspec

from rt import log
from rt.access.station_sockets import station_of


class SourceAddress(bytes):
    """The source of a datagram as `host:port`, with facts about the datagram.

    Attributes:
        station: Station whose key signed the datagram; empty without a signature.
        key_id: Id of that key.
        sequence: Sequence number of the datagram.
        size: Length of the datagram, in bytes.
    """

    station: str = ""
    key_id: bytes = b""
    sequence: int = 0
    size: int = 0


class Caller(msgspec.Struct, frozen=True):
    """The peer that made a call.

    Attributes:
        peer: Name of the peer at the router, or the source of a datagram as `host:port`.
        is_routed: Whether the call came through the router.
    """

    peer: bytes = b""
    is_routed: bool = False

    @property
    def station(self) -> str:
        """The station that authenticated the call; empty for the robot's user and without keys."""
        if self.is_routed:
            return station_of(self.peer)
        return self.peer.station if isinstance(self.peer, SourceAddress) else ""

    @property
    def source(self) -> str:
        """The source whose log budget pays for events; empty for local programs."""
        return (
            f"station {each}"
            if (each := self.station)
            else "datagrams"
            if isinstance(self.peer, SourceAddress)
            else ""
        )

    def may_be_remote(self, *, insecure: bool) -> bool:
        """Return whether the caller may be on another computer or be another user.

        That is a caller with a station's key, and any routed caller if the robot needs no keys.
        """
        return bool(self.station) or (self.is_routed and insecure)


LOCAL = Caller()
"""This process itself."""

_current: ContextVar[Caller] = ContextVar("caller", default=LOCAL)


def caller() -> Caller:
    """Return the caller of the method that runs in this task; `LOCAL` outside of calls."""
    return _current.get()


def set_caller(value: Caller) -> None:
    """Set the caller for the rest of this task, and charge log events to its source."""
    _current.set(value)
    log.bind_source(value.source)
