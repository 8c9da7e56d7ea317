"""Who makes the call that a handler serves.

A service states the caller before it runs a method; the method, and whatever it calls, may ask for
it with `caller`.
"""

from contextvars import ContextVar

import msgspec

from rt import log
from rt.access.stations import station_of


class SourceAddress(bytes):
    """`host:port` of a datagram's source, with what the node knows of the datagram.

    Attributes:
        station: The station whose key signed the datagram; empty without a signature.
        key_id: The id of that key.
        sequence: The datagram's sequence.
        size: Length of the datagram, in bytes.
    """

    station: str = ""
    key_id: bytes = b""
    sequence: int = 0
    size: int = 0


class Caller(msgspec.Struct, frozen=True):
    """One end that calls.

    Attributes:
        peer: Its name at the router, or `host:port` of a datagram's source.
        is_routed: Whether the call came through the router.
    """

    peer: bytes = b""
    is_routed: bool = False

    @property
    def station(self) -> str:
        """The station whose key proves the call; empty for the robot's own user, and where no keys are used."""
        if self.is_routed:
            return station_of(self.peer)
        return self.peer.station if isinstance(self.peer, SourceAddress) else ""

    @property
    def source(self) -> str:
        """To what log events are charged; empty for programs at the robot."""
        return (
            f"station {each}"
            if (each := self.station)
            else "datagrams"
            if isinstance(self.peer, SourceAddress)
            else ""
        )

    def may_be_remote(self, *, insecure: bool) -> bool:
        """Whether the caller may be another computer or user: it has a station's key, or the robot is open without keys."""
        return bool(self.station) or (self.is_routed and insecure)


LOCAL = Caller()
"""This process itself."""

_current: ContextVar[Caller] = ContextVar("caller", default=LOCAL)


def caller() -> Caller:
    """The caller of the method that runs in this task; `LOCAL` outside of calls."""
    return _current.get()


def set_caller(value: Caller) -> None:
    """State the caller for the rest of this task; events are charged to a caller that may be elsewhere."""
    _current.set(value)
    log.charge(value.source)
