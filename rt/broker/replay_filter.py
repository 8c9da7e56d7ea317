"""Whether a gamepad update is news: by the sequence number and the time that the driver's station has stamped it with.

A network may deliver a datagram late, twice, or after its successor, and a recorded one may be sent
again. The rule of this module: of one station only what is newer than all before it counts, and
only while it is young. Clocks need not agree: an update's age is told by how much longer it took
than the quickest of its station.

An update without a stamp is always news, and so is a recording of it. Unsigned ones come over the
loopback interface, or to a robot that is ``insecure``, and there whoever can send may drive anyhow;
a signed one counts once (``rt.protocol.signed``).

It is pure: the caller brings the time.
"""

from collections import OrderedDict

from rt.errors import RemoteProtocolError
from rt.protocol.control import Stamp

MAX_AGE = 0.5
"""The age (s) from which an update is too old to be obeyed: that at which a silent gamepad reads neutral."""
MAX_STATIONS = 16
"""How many stations are remembered; one more, and the one that was silent for longest is forgotten."""
RESET_TIME = 1.0
"""For how long (s) updates may be late by the same time until it is the station's clock that has been set back; and after how
long without an update that counted a station without a name is taken for another one.
"""
_DRIFT = 1e-3
_EQUAL = 0.1


class _Station:
    """What is known of one station: its last number, the quickest trip so far and since when updates are late."""

    def __init__(self, now: float) -> None:
        self.last_update = now
        self.seq = -1
        self.least: float | None = None
        self.at = 0.0
        self.late: tuple[float, float] | None = None


class SequenceTracker:
    """Remembers the stamps of each station.

    Attributes:
        refused: How many updates were no news.
    """

    def __init__(self) -> None:
        self._stations: OrderedDict[tuple[str, str], _Station] = OrderedDict()
        self.refused = 0

    def check(self, stamp: Stamp, now: float, place: str = "") -> None:
        """Note an update that has come in.

        Args:
            stamp: What it carries.
            now: When it came (s, of a clock that is never set).
            place: Where the station is; stations of the same name at different places are different
                ones.

        Raises:
            RemoteProtocolError: It is not newer than the last of its station, or too old; nothing
                of it may count.
        """
        station = self._stations.setdefault((place, stamp.station), _Station(now))
        if not stamp.station and now - station.last_update > RESET_TIME:
            # A station without a name cannot take another one when it is started anew and counts
            # from 0 again.
            station.seq = -1
        self._stations.move_to_end((place, stamp.station))
        if len(self._stations) > MAX_STATIONS:
            self._stations.popitem(last=False)
        if stamp.seq is not None:
            if stamp.seq <= station.seq:
                fault = (
                    f"number {stamp.seq} comes after {station.seq}: it was sent twice or overtaken"
                )
                self._refuse(
                    "sequence", f"{fault}, or its station was started anew and needs another name"
                )
            station.seq = stamp.seq
        if stamp.time is not None:
            age = _age(station, stamp.time, now)
            if age > MAX_AGE:
                self._refuse("age", f"it was {age:.1f} s on its way")
        station.last_update = now

    def _refuse(self, reason: str, fault: str) -> None:
        self.refused += 1
        raise RemoteProtocolError(f"update_gamepads: {fault}", reason=reason)


def _age(station: _Station, sent: float, now: float) -> float:
    """By how much longer (s) an update took than the quickest; 0 for the first of a station."""
    trip = now - sent
    if station.least is None or trip <= station.least:
        station.least = trip
    else:
        # A clock that is a little slow would make every update seem to come later than the one
        # before.
        station.least = min(station.least + _DRIFT * (now - station.at), trip)
    station.at = now
    age = trip - station.least
    if age <= MAX_AGE:
        station.late = None
    elif station.late is None or trip < station.late[1] - _EQUAL:
        # What a network has held up comes in a bunch, each less late than the one before.
        station.late = (now, trip)
    elif now - station.late[0] >= RESET_TIME:
        station.least, station.late = trip, None
        return 0.0
    return age
