"""Control datagrams that prove who sent them: the form in which a driver's station sends gamepads over a network.

A signed datagram, in bytes, integers unsigned and big endian:

    offset  length  what 0       4       "rtc1"; no message of the call protocol begins with "r" 4
    8       id of the station's datagram key 12      8       session: 8 bytes that the robot chose
    when it started, zeros while the station does not know them 20      8       sequence: greater
    than in every earlier datagram of this station in this session, gaps allowed 28      n
    payload: the notification that would be sent without keys, see `rt.protocol.control` 28+n    16
    tag: BLAKE2b of all bytes before it, digest of 16 bytes, keyed with the station's datagram key
    (32 bytes)

A station that names another session than the robot's, or a sequence that the robot has passed, gets
an answer:

    offset  length  what
    0       4       "rta1"
    4       8       id of the station's datagram key
    12      8       session of the robot
    20      8       the greatest sequence that the robot has obeyed in this session, 0 for none
    28      16      tag, made as above

What the robot has to tell a station about a datagram that it obeyed goes back to where that came
from, never longer than it:

    offset  length  what
    0       4       "rtn1"
    4       8       id of the station's datagram key
    12      8       session of the robot
    20      8       sequence of the datagram that this is about
    28      n       payload: a notification, see `rt.protocol.control`
    28+n    16      tag, made as above

So a station sends with session 0 and sequence 1, takes session and sequence from the answer (if its
tag is right), and goes on counting from there; whenever the robot was restarted, it hears the new
session. Neither side needs a clock or a file.

The rule of this module: the tag is looked at first, and nothing that it does not cover changes
anything; a datagram is obeyed at most once, in one session only, and never after a newer one of the
same station.
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
"""Sequences of a station that are remembered, to tell a datagram that came again from one that came late."""

_HEAD = struct.Struct(">4s8s8sQ")
OVERHEAD = _HEAD.size + TAG_BYTES
"""Bytes by which a signed datagram or notice is longer than its payload."""

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
"""`obeyed`, of these without a signature `obeyed_unsigned`; or why not: `unsigned` (another form), `stranger` (unsigned, from another user of this computer), `malformed` (too short), `unknown` (no such key, or revoked), `forged` (wrong
tag), `session` (of an earlier start of the robot, or not known yet), `late` (a newer one was
faster), `replayed` (it was here).
"""


class DatagramKey(msgspec.Struct, frozen=True):
    """What a station signs with and the robot verifies with.

    Attributes:
        id: 8 bytes, not secret.
        secret: 32 bytes.
    """

    id: bytes
    secret: bytes

    def __post_init__(self) -> None:
        if len(self.id) != ID_BYTES or len(self.secret) != SECRET_BYTES:
            raise ValueError(
                f"a datagram key is an id of {ID_BYTES} bytes and a secret of {SECRET_BYTES}"
            )


class Checked(msgspec.Struct, frozen=True):
    """What became of a datagram.

    Attributes:
        verdict: See `Verdict`.
        key_id: Whose it is, empty unless the tag was right.
        payload: What to obey, empty unless the verdict is `obeyed`.
        answer: What to send back to where it came from, empty for nothing.
        sequence: Of an obeyed datagram.
    """

    verdict: Verdict
    key_id: bytes = b""
    payload: bytes = b""
    answer: bytes = b""
    sequence: int = 0


class ReplayWindow:
    """The sequences that a station has used in one session; remembers the greatest `size` of them."""

    def __init__(self, size: int = WINDOW) -> None:
        self._size = size
        self._used: list[int] = []

    @property
    def newest(self) -> int:
        """The greatest sequence so far, 0 for none."""
        return self._used[-1] if self._used else 0

    def record(self, sequence: int) -> Literal["obeyed", "late", "replayed"]:
        """Use a sequence: `obeyed` if it is the greatest so far, `late` if it is only new; both are remembered.

        One that is smaller than all that are remembered may have been used before and counts as
        `replayed`; so does 0.
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
    """The robot's side: decides which datagrams are obeyed.

    Args:
        session: 8 bytes that no earlier start of the robot has used: random ones, not all zero.
    """

    def __init__(self, session: bytes) -> None:
        if len(session) != SESSION_BYTES or session == NO_SESSION:
            raise ValueError(f"a session is {SESSION_BYTES} bytes, not all zero")
        self._session = session
        self._windows: dict[bytes, ReplayWindow] = {}

    def check(self, datagram: bytes, keys: Mapping[bytes, DatagramKey]) -> Checked:
        """Decide what to do with a datagram, whatever its bytes are.

        Args:
            datagram: As it came.
            keys: The keys that count at this moment, by their ids.
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
        """A notice to a station about a datagram that was obeyed.

        Args:
            key: The station's.
            sequence: The datagram's.
            payload: What to say.
        """
        return _tagged(_HEAD.pack(NOTICE, key.id, self._session, sequence) + payload, key)


class Signer:
    """The station's side: signs what it sends and heeds the robot's answers.

    Args:
        key: The station's.
    """

    def __init__(self, key: DatagramKey) -> None:
        self.session = NO_SESSION
        self.sequence = 0
        self._key = key
        self._noticed = 0

    def sign(self, payload: bytes) -> bytes:
        """The datagram that carries a payload; each one has the next sequence.

        Raises:
            LocalProtocolError: All sequences of the session are used up.
        """
        if self.sequence >= SEQUENCE_MAX:
            raise LocalProtocolError("the sequence cannot grow any more; restart the robot")
        self.sequence += 1
        return _tagged(
            _HEAD.pack(REQUEST, self._key.id, self.session, self.sequence) + payload, self._key
        )

    def handle_answer(self, datagram: bytes) -> bool:
        """Heed an answer of the robot; False if it is none that concerns this key."""
        if len(datagram) != _HEAD.size + TAG_BYTES or not datagram.startswith(ANSWER):
            return False
        _, key_id, session, newest = _HEAD.unpack_from(datagram)
        if key_id != self._key.id or not _is_tagged(datagram, self._key):
            return False
        if session != self.session:
            self.session, self.sequence, self._noticed = session, newest, 0
        # An old answer of this session may come again: the sequence only grows.
        self.sequence = max(self.sequence, newest)
        return True

    def read_notice(self, datagram: bytes) -> bytes | None:
        """The payload of a notice about a datagram of this session that is newer than the one of the last notice, or None."""
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
