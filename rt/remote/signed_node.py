"""Nodes for signed control datagrams: the robot's, which verifies, and a station's, which signs.

`rt.protocol.signed_datagram` specifies the datagrams and decides which are accepted; this module
does the I/O.

Invariant: rejected datagrams are counted by reason and logged at most once a second.
"""

import math
import secrets
from typing import get_args

import trio

from rt import log
from rt.access.keyring import Keyring
from rt.access.peer import DatagramPeers
from rt.access.station_key import StationKey
from rt.errors import RemoteProtocolError
from rt.log.throttle import Throttle
from rt.protocol.datagrams import Refused, decode_refused, encode_refused
from rt.protocol.signed_datagram import (
    NO_SESSION,
    OVERHEAD,
    SESSION_BYTES,
    Checked,
    Signer,
    Verdict,
    Verifier,
)
from rt.remote.caller import SourceAddress
from rt.remote.datagram import DatagramNode

ANSWER_INTERVAL = 0.05
"""Minimum time between answers to one key and address, in s.

The limit is per address, so that an attacker who replays a station's datagrams from elsewhere does
not use up the answers that the station needs.
"""

_ADDRESSES_MAX = 256

BURST = 64
"""Datagrams that are dropped before a checkpoint."""

LOG_INTERVAL = 1.0
"""Minimum time between log events about dropped datagrams, in s."""

REFUSAL_LIFE = 2.0
"""Time for which a refusal is valid at the station, in s; the robot repeats it every second."""

_REMEDIES = {"unsigned": {"remedy": "give the station its key: this robot is open to the network"}}
_LOGGED_VERDICTS = {"unsigned", "stranger", "malformed", "unknown", "forged", "replayed"}
"""Verdicts that a well-behaved station never causes; its datagrams may be `late`, or carry an old
session.
"""


class VerifyingNode(DatagramNode):
    """A bound node that passes on the payloads of datagrams with a valid signature of a station.

    Args:
        host: Address of the robot, as in `DatagramNode`.
        port: Port of its control address.
        keyring: Keys of the stations; the caller refreshes it.
        required: Whether unsigned datagrams are dropped. Datagrams with an invalid signature
            always are.
        peers: Decides whose unsigned datagrams are accepted, if no signature is required; None
            accepts all.

    Attributes:
        counters: Counters of the socket, which include dropped datagrams.
        verdicts: Number of received datagrams by verdict.
    """

    def __init__(
        self,
        host: str,
        port: int,
        keyring: Keyring,
        *,
        required: bool,
        peers: DatagramPeers | None = None,
    ) -> None:
        super().__init__(host, port, bind=True)
        self.verdicts: dict[Verdict, int] = dict.fromkeys(get_args(Verdict), 0)
        self.required = required
        self._keyring = keyring
        self._peers = peers
        self._verifier = Verifier(b"\1" + secrets.token_bytes(SESSION_BYTES - 1))
        self._answered: dict[tuple[bytes, bytes], float] = {}
        self._log = log.get_logger()
        self._drops = Throttle(burst=1, interval=LOG_INTERVAL, clock=trio.current_time)

    async def __aexit__(self, *exc_info: object) -> None:
        if self._peers is not None:
            self._peers.close()
        await super().__aexit__(*exc_info)

    def send_refusal_notice(self, source: bytes, refused: Refused) -> None:
        """Notify the source of a datagram that its gamepads are refused.

        The notice is signed if the datagram was, and never longer than the datagram. Does not
        wait: a notice is dropped if the socket's buffer is full.

        Args:
            source: Source as returned by `recv`.
            refused: The station in control, and the refused one.
        """
        if not isinstance(source, SourceAddress):
            return
        if not source.station:
            payload = encode_refused(refused, source.size)
        else:
            key = self._keyring.datagram_keys.get(source.key_id)
            payload = encode_refused(refused, source.size - OVERHEAD)
            if key is not None and payload:
                payload = self._verifier.notice(key, source.sequence, payload)
        if payload:
            self.send_nowait(source, payload)

    async def recv(self) -> tuple[bytes, bytes]:
        """Wait for an accepted datagram; return its `SourceAddress` and its payload.

        A checkpoint. If cancelled, no datagram is lost.

        Raises:
            trio.ClosedResourceError: The node is not open, or was closed while waiting.
        """
        left = 0
        while True:
            # During a flood, read in bursts: the kernel drops the driver's datagrams if its queue
            # is not emptied in time.
            received = self._recv_nowait() if left else None
            left = left - 1 if received else BURST
            peer, datagram = received or await super().recv()
            checked = self._verifier.check(datagram, self._keyring.datagram_keys)
            if checked.verdict == "unsigned" and not self.required:
                if self._peers is None or self._peers.admits(peer, self.kernel_socket):
                    self.verdicts["obeyed"] += 1
                    self.verdicts["obeyed_unsigned"] += 1
                    return self._source(peer, datagram, checked), datagram
                checked = Checked("stranger")
            self.verdicts[checked.verdict] += 1
            if checked.verdict == "obeyed":
                return self._source(peer, datagram, checked), checked.payload
            if checked.verdict in _LOGGED_VERDICTS:
                self._log_drop(checked, peer)
            if checked.answer and self._may_answer(checked.key_id, peer):
                await self.send(peer, checked.answer)

    def _source(self, peer: bytes, datagram: bytes, checked: Checked) -> SourceAddress:
        source = SourceAddress(peer)
        source.size = len(datagram)
        if checked.verdict == "obeyed":
            source.station = self._keyring.station_of_datagram(checked.key_id) or ""
            source.key_id, source.sequence = checked.key_id, checked.sequence
        return source

    def _may_answer(self, key_id: bytes, peer: bytes) -> bool:
        now = trio.current_time()
        if now - self._answered.get((key_id, peer), -math.inf) < ANSWER_INTERVAL:
            return False
        if len(self._answered) >= _ADDRESSES_MAX:
            self._answered.clear()
        self._answered[key_id, peer] = now
        return True

    def _log_drop(self, checked: Checked, peer: bytes) -> None:
        self._drops.log(
            self._log.warning,
            "control datagram dropped",
            reason=checked.verdict,
            peer=peer.decode(),
            station=self._keyring.station_of_datagram(checked.key_id),
            **_REMEDIES.get(checked.verdict, {}),
        )


class StationNode(DatagramNode):
    """A driver's station's node, which signs what it sends.

    A task has to wait in `recv` meanwhile, such as that of `rt.remote.Client`. Datagrams that are
    sent before the robot has answered with its session are lost, which is harmless for gamepads:
    they are sent periodically.

    Args:
        host: Address of the robot.
        port: Port of its control address, `port_base` + 2.
        station_key: The station key; None for a robot that needs no key.
    """

    def __init__(self, host: str, port: int, station_key: StationKey | None) -> None:
        super().__init__(host, port, bind=False)
        self._signer = Signer(station_key.datagram) if station_key else None
        self._refused: Refused | None = None
        self._refused_at = -math.inf
        self._log = log.get_logger()

    @property
    def is_ready(self) -> bool:
        """Whether the robot accepts datagrams: its session is known, or no key is used."""
        return self._signer is None or self._signer.session != NO_SESSION

    @property
    def refused(self) -> Refused | None:
        """The station in control while the robot refuses this station's gamepads, else None.

        The method `take_control` of broker-service takes over control. This property lags by up to
        `REFUSAL_LIFE`.
        """
        return self._refused if trio.current_time() < self._refused_at + REFUSAL_LIFE else None

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Sign and send one datagram; see `DatagramNode.send`."""
        await super().send(peer, self._signer.sign(payload) if self._signer else payload)

    async def recv(self) -> tuple[bytes, bytes]:
        """Handle the robot's answers and notices; return any other datagram.

        See `DatagramNode.recv`.
        """
        while True:
            peer, datagram = await super().recv()
            if self._signer is not None and self._signer.handle_answer(datagram):
                continue
            notice = self._signer.read_notice(datagram) if self._signer else datagram
            if notice is None or not self._handle_notice(notice):
                return peer, datagram

    def _handle_notice(self, notice: bytes) -> bool:
        """Record a refusal of this station's gamepads; return False for any other notice."""
        try:
            refused = decode_refused(notice)
        except RemoteProtocolError:
            return False
        if self.refused is None:
            self._log.warning(
                "gamepads refused; another station has control",
                commander=refused.by,
                station=refused.you,
                remedy="run `rt call take_control` at this station to take over",
            )
        self._refused, self._refused_at = refused, trio.current_time()
        return True
