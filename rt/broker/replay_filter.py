"""The filter for late, duplicated and replayed gamepad updates, by sequence number and time.

A network may delay, duplicate or reorder datagrams, and an attacker may replay recorded ones.

Invariant: an update is accepted only if it is newer than all earlier ones of its station and at
most `SILENCE` old. Clocks need not agree: the age of an update is the time by which it took longer
than the fastest update of its station.

An update without a stamp is always accepted, and so is a recording of it. Unsigned updates arrive
over the loopback interface or at an ``insecure`` robot, where every sender may drive anyway. Signed
datagrams are accepted once (``rt.protocol.signed_datagram``).

The module is pure; callers pass the time (s) of a monotonic clock.
"""

from collections import OrderedDict

from rt.errors import RemoteProtocolError
from rt.protocol.datagrams import SILENCE, Stamp

MAX_STATIONS = 16
"""Maximum number of stations that are remembered, those with the newest updates."""
RESET_TIME = 1.0
"""Time (s) of a constant delay after which the station's clock is assumed to be set back.

After the same time without an accepted update, a station without a name is assumed to be another
one.
"""
_DRIFT = 1e-3
_EQUAL = 0.1


class _Station:
    """The state of one station.

    Attributes:
        last_update: Time of the last accepted update.
        seq: Last sequence number.
        least: Smallest difference of receive time and sent time, or None.
        at: Time of the last update with a sent time.
        late: Since when updates are late, and their difference; None while they are not.
    """

    def __init__(self, now: float) -> None:
        self.last_update = now
        self.seq = -1
        self.least: float | None = None
        self.at = 0.0
        self.late: tuple[float, float] | None = None


class SequenceTracker:
    """Tracks the stamps of each station.

    Attributes:
        refused: Number of refused updates.
    """

    def __init__(self) -> None:
        self._stations: OrderedDict[tuple[str, str], _Station] = OrderedDict()
        self.refused = 0

    def check(self, stamp: Stamp, now: float, place: str = "") -> None:
        """Record an update.

        Args:
            stamp: Stamp of the update.
            now: Time at which it was received (s).
            place: Place of the station, which distinguishes stations of the same name.

        Raises:
            RemoteProtocolError: The update is not newer than the last one of its station, or it is
                too old; it must be ignored.
        """
        station = self._stations.setdefault((place, stamp.station), _Station(now))
        if not stamp.station and now - station.last_update > RESET_TIME:
            # A restarted station without a name starts at 0 again and cannot change its name.
            station.seq = -1
        self._stations.move_to_end((place, stamp.station))
        if len(self._stations) > MAX_STATIONS:
            self._stations.popitem(last=False)
        if stamp.seq is not None:
            if stamp.seq <= station.seq:
                self._refuse(
                    "sequence",
                    f"number {stamp.seq} follows {station.seq}; it was sent twice or overtaken, or"
                    " its station was restarted and needs another name",
                )
            station.seq = stamp.seq
        if stamp.time is not None:
            age = _age(station, stamp.time, now)
            if age > SILENCE:
                self._refuse("age", f"it is {age:.1f} s old")
        station.last_update = now

    def _refuse(self, reason: str, fault: str) -> None:
        self.refused += 1
        raise RemoteProtocolError(f"update_gamepads: {fault}", reason=reason)


def _age(station: _Station, sent: float, now: float) -> float:
    """Return by how much longer (s) an update took than the fastest; 0 for the first one."""
    trip = now - sent
    if station.least is None or trip <= station.least:
        station.least = trip
    else:
        # Compensate clock drift: with a slow clock, every update seems later than the one before.
        station.least = min(station.least + _DRIFT * (now - station.at), trip)
    station.at = now
    age = trip - station.least
    if age <= SILENCE:
        station.late = None
    elif station.late is None or trip < station.late[1] - _EQUAL:
        # Delayed updates arrive together, each less late than the one before.
        station.late = (now, trip)
    elif now - station.late[0] >= RESET_TIME:
        station.least, station.late = trip, None
        return 0.0
    return age
