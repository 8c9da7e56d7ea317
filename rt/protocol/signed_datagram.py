"""Signed control datagrams: the format in which a driver's station sends gamepads over a network.

Integers are unsigned and big-endian. A signed datagram:

    offset  length  field
    0       4       "rtc1"; no RPC message begins with "r"
    4       8       id of the station's datagram key
    12      8       session: chosen by the robot when it started; zeros if the station does not
                    know it yet
    20      8       sequence: greater than in every earlier datagram of this station in this
                    session; gaps are allowed
    28      n       payload: the notification, see `rt.protocol.datagrams`
    28+n    16      tag: BLAKE2b of all bytes before it, digest of 16 bytes, keyed with the
                    station's datagram key (32 bytes)

The robot answers a station that sends another session, or a sequence that is not new:

    offset  length  field
    0       4       "rta1"
    4       8       id of the station's datagram key
    12      8       session of the robot
    20      8       the greatest sequence that the robot has accepted in this session, 0 for none
    28      16      tag, computed as above

The robot sends a notice about an accepted datagram to its source address. A notice is never longer
than the datagram:

    offset  length  field
    0       4       "rtn1"
    4       8       id of the station's datagram key
    12      8       session of the robot
    20      8       sequence of the datagram
    28      n       payload: a notification, see `rt.protocol.datagrams`
    28+n    16      tag, computed as above

A station starts with session 0 and sequence 1, and continues with the session and sequence of the
answer (if its tag is correct). After a restart of the robot, it learns the new session in the same
way. Neither side needs a clock or a file.

Invariant: the tag is verified first, and unverified bytes change no state. A datagram is accepted
    at most once, only in its session, and never after a newer one of the same station.
"""

import hmac
import struct
from bisect import insort
from collections.abc import Mapping
from hashlib import blake2b
from typing import Literal, TypeAlias

import msgspec

from rt.errors import LocalProtocolError

REQUEST = b"rtc1"
ANSWER = b"rta1"
NOTICE = b"rtn1"
ID_BYTES = 8
SECRET_BYTES = 32
SESSION_BYTES = 8
TAG_BYTES = 16
NO_SESSION = bytes(SESSION_BYTES)
SEQUENCE_MAX = (1 << 64) - 1
WINDOW = 64
"""The number of stored sequences per station, to distinguish replayed from late datagrams."""

_HEAD = struct.Struct(">4s8s8sQ")
OVERHEAD = _HEAD.size + TAG_BYTES
"""The bytes that signing adds to a payload."""

Verdict: TypeAlias = Literal[
    "obeyed",
    "obeyed_unsigned",
    "unsigned",
    "stranger",
    "malformed",
    "unknown",
    "forged",
    "session",
    "late",
    "replayed",
]
"""The verdict on a datagram.

It is `obeyed` (accepted) or `obeyed_unsigned` (accepted without signature), or says why it
was refused: `unsigned` (not in this format), `stranger` (unsigned, from another user of this
computer), `malformed` (too short), `unknown` (no such key, or revoked), `forged` (wrong tag),
`session` (not the present session of the robot), `late` (a newer one arrived first), `replayed`
(received before).
"""


class DatagramKey(msgspec.Struct, frozen=True):
    """The shared key of a station and the robot.

    Attributes:
        id: 8 bytes, not secret.
        secret: 32 bytes.
    """

    id: bytes
    secret: bytes

    def __post_init__(self) -> None:
        if len(self.id) != ID_BYTES or len(self.secret) != SECRET_BYTES:
            raise ValueError(
                f"a datagram key has an id of {ID_BYTES} bytes and a secret of {SECRET_BYTES}"
            )


class Checked(msgspec.Struct, frozen=True):
    """The result of verifying a datagram.

    Attributes:
        verdict: See `Verdict`.
        key_id: The id of its key; empty unless the tag is correct.
        payload: The payload; empty unless the verdict is `obeyed`.
        answer: The datagram to send to its source address; empty for none.
        sequence: The sequence of an accepted datagram.
    """

    verdict: Verdict
    key_id: bytes = b""
    payload: bytes = b""
    answer: bytes = b""
    sequence: int = 0


class ReplayWindow:
    """The greatest `size` sequences that a station has used in one session."""

    def __init__(self, size: int = WINDOW) -> None:
        self._size = size
        self._used: list[int] = []

    @property
    def newest(self) -> int:
        """The greatest sequence so far, 0 for none."""
        return self._used[-1] if self._used else 0

    def record(self, sequence: int) -> Literal["obeyed", "late", "replayed"]:
        """Record a sequence: `obeyed` if it is the greatest, `late` if it is new, else `replayed`.

        A sequence smaller than all stored ones may have been used before and counts as `replayed`;
        so does 0.
        """
        newest = self.newest
        if sequence > newest:
            self._used.append(sequence)
            del self._used[: -self._size]
            return "obeyed"
        if (
            sequence in self._used
            or sequence == 0
            or (len(self._used) >= self._size and sequence < self._used[0])
        ):
            return "replayed"
        insort(self._used, sequence)
        del self._used[: -self._size]
        return "late"


class Verifier:
    """The robot's side: verifies datagrams.

    Args:
        session: 8 random bytes, not all zero, new at each start of the robot.
    """

    def __init__(self, session: bytes) -> None:
        if len(session) != SESSION_BYTES or session == NO_SESSION:
            raise ValueError(f"a session has {SESSION_BYTES} bytes, not all zero")
        self._session = session
        self._windows: dict[bytes, ReplayWindow] = {}

    def check(self, datagram: bytes, keys: Mapping[bytes, DatagramKey]) -> Checked:
        """Verify a datagram, which may contain any bytes.

        Args:
            datagram: The received bytes.
            keys: The keys that are valid now, by id.
        """
        if not datagram.startswith(REQUEST):
            return Checked("unsigned")
        if len(datagram) < _HEAD.size + TAG_BYTES:
            return Checked("malformed")
        key = keys.get(datagram[len(REQUEST) : len(REQUEST) + ID_BYTES])
        if key is None:
            return Checked("unknown")
        if not _is_tagged(datagram, key):
            return Checked("forged")
        return self._check_order(datagram, key)

    def _check_order(self, datagram: bytes, key: DatagramKey) -> Checked:
        _, _, session, sequence = _HEAD.unpack_from(datagram)
        window = self._windows.setdefault(key.id, ReplayWindow())
        verdict: Verdict = window.record(sequence) if session == self._session else "session"
        if verdict == "obeyed":
            return Checked("obeyed", key.id, datagram[_HEAD.size : -TAG_BYTES], sequence=sequence)
        answer = _HEAD.pack(ANSWER, key.id, self._session, window.newest)
        return Checked(verdict, key.id, answer=_tagged(answer, key))

    def notice(self, key: DatagramKey, sequence: int, payload: bytes) -> bytes:
        """Return a notice to a station about an accepted datagram.

        Args:
            key: The key of the station.
            sequence: The sequence of the datagram.
            payload: The notification.
        """
        return _tagged(_HEAD.pack(NOTICE, key.id, self._session, sequence) + payload, key)


class Signer:
    """The station's side: signs datagrams and handles answers and notices.

    Args:
        key: The key of the station.
    """

    def __init__(self, key: DatagramKey) -> None:
        self.session = NO_SESSION
        self.sequence = 0
        self._key = key
        self._noticed = 0

    def sign(self, payload: bytes) -> bytes:
        """Return the datagram with a payload and the next sequence.

        Raises:
            LocalProtocolError: The session has no sequences left.
        """
        if self.sequence >= SEQUENCE_MAX:
            raise LocalProtocolError("the session has no sequences left; restart the robot")
        self.sequence += 1
        return _tagged(
            _HEAD.pack(REQUEST, self._key.id, self.session, self.sequence) + payload, self._key
        )

    def handle_answer(self, datagram: bytes) -> bool:
        """Adopt session and sequence of an answer; return False if it is not one for this key."""
        if len(datagram) != _HEAD.size + TAG_BYTES or not datagram.startswith(ANSWER):
            return False
        _, key_id, session, newest = _HEAD.unpack_from(datagram)
        if key_id != self._key.id or not _is_tagged(datagram, self._key):
            return False
        if session != self.session:
            self.session, self.sequence, self._noticed = session, newest, 0
        # An old answer of this session may be replayed: the sequence only increases.
        self.sequence = max(self.sequence, newest)
        return True

    def read_notice(self, datagram: bytes) -> bytes | None:
        """Return the payload of a notice, or None if the datagram is not a valid and new notice.

        A new notice is about a later datagram of this session than the last notice.
        """
        if len(datagram) < _HEAD.size + TAG_BYTES or not datagram.startswith(NOTICE):
            return None
        _, key_id, session, sequence = _HEAD.unpack_from(datagram)
        if key_id != self._key.id or session != self.session or not _is_tagged(datagram, self._key):
            return None
        if not self._noticed < sequence <= self.sequence:
            return None
        self._noticed = sequence
        return datagram[_HEAD.size : -TAG_BYTES]


def _tagged(body: bytes, key: DatagramKey) -> bytes:
    return body + blake2b(body, key=key.secret, digest_size=TAG_BYTES).digest()


def _is_tagged(datagram: bytes, key: DatagramKey) -> bool:
    expected = blake2b(datagram[:-TAG_BYTES], key=key.secret, digest_size=TAG_BYTES).digest()
    return hmac.compare_digest(expected, datagram[-TAG_BYTES:])
