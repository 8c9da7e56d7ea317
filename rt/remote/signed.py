"""Nodes for signed control datagrams: the robot's, which verifies, and a driver's station's, which signs.

The form of the datagrams, and what is obeyed, is `rt.protocol.signed`; these are the sockets around it. The rule of this
module: what is not obeyed is counted by its reason, and said at most once a second, whatever comes.
"""

import contextlib
import math
import secrets
from types import TracebackType
from typing import Self, get_args

import trio

from rt import log
from rt.errors import RemoteProtocolError
from rt.keys import Bundle, Keyring
from rt.protocol.control import Refused, decode_refused, encode_refused
from rt.protocol.signed import NO_SESSION, OVERHEAD, SESSION_BYTES, Checked, Signer, Verdict, Verifier
from rt.remote.caller import SourceAddress
from rt.remote.datagram import DatagramNode
from rt.remote.peer import DatagramPeers

ANSWER_INTERVAL = 0.05
"""Least time between two answers to one address, in s. Addresses are told apart so that nobody, by replaying what a station has
sent, draws the answers that this station needs."""

_ADDRESSES_MAX = 256

BURST = 64
"""Datagrams that are dropped in a row before the rest of the process has its turn."""

COMPLAINT_INTERVAL = 1.0
"""Time between two log events about datagrams that were dropped, in s."""

REFUSAL_LIFE = 2.0
"""Time (s) for which a refusal holds at the station; the robot repeats it every second while it refuses."""

_REMEDIES = {"unsigned": {"remedy": "give the station its key: this robot is open to the network"}}
_ALWAYS_SAID = {"unsigned", "stranger", "malformed", "unknown", "forged", "replayed"}
"""What a station that means well does not send; it may be `late`, or not know the session yet."""


class VerifyingNode:
    """A bound node that passes on what stations with a key have signed.

    Args:
        node: Where datagrams come in; opened and closed with this node.
        keyring: Who is obeyed; somebody else refreshes it.
        required: Whether datagrams without a signature are dropped; one with a wrong signature always is.
        peers: Decides whose datagrams are obeyed without a signature, where none is required; by default everybody's.

    Attributes:
        counters: What passed the socket, dropped datagrams included.
        verdicts: How many datagrams came in, by what became of them.
    """

    def __init__(
        self, node: DatagramNode, keyring: Keyring, *, required: bool, peers: DatagramPeers | None = None
    ) -> None:
        self.verdicts: dict[Verdict, int] = dict.fromkeys(get_args(Verdict), 0)
        self.required = required
        self.counters = node.counters
        self._node = node
        self._keyring = keyring
        self._peers = peers
        self._verifier = Verifier(b"\1" + secrets.token_bytes(SESSION_BYTES - 1))
        self._answered: dict[tuple[bytes, bytes], float] = {}
        self._log = log.get_logger()
        self._said_at = -math.inf
        self._unsaid = 0

    @property
    def routed(self) -> bool:
        """No router is at the other end."""
        return False

    @property
    def where(self) -> str:
        """The address, for a person."""
        return self._node.where

    async def __aenter__(self) -> Self:
        await self._node.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._peers is not None:
            self._peers.close()
        await self._node.__aexit__(exc_type, exc, tb)

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Send one datagram, without a signature; see `DatagramNode.send`."""
        await self._node.send(peer, payload)

    async def post(self, peer: bytes, payload: bytes) -> None:
        """See `send`."""
        await self._node.post(peer, payload)

    def tell_refused(self, source: bytes, refused: Refused) -> None:
        """Tell the source of a datagram that its gamepads are refused, signed if the datagram was; never at greater length.

        Does not wait: what finds no room in the socket is dropped.

        Args:
            source: As `recv` returned it.
            refused: Who has control.
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
            self._node.send_nowait(source, payload)

    async def recv(self) -> tuple[bytes, bytes]:
        """Wait for a datagram that is obeyed; returns a `SourceAddress`, `host:port` of who sent it, and its payload.

        A checkpoint. A cancel loses nothing.

        Raises:
            trio.ClosedResourceError: The node is not open, or was closed meanwhile.
        """
        left = 0
        while True:
            # Between the datagrams of a flood may be one of the driver's, and the kernel drops what is not read in time.
            taken = self._another() if left else None
            left = left - 1 if taken else BURST
            peer, datagram = taken or await self._node.recv()
            checked = self._verifier.check(datagram, self._keyring.datagram_keys)
            if checked.verdict == "unsigned" and not self.required:
                if self._peers is None or self._peers.admits(peer, self._node.kernel_socket):
                    self.verdicts["obeyed"] += 1
                    self.verdicts["obeyed_unsigned"] += 1
                    return self._source(peer, datagram, checked), datagram
                checked = Checked("stranger")
            self.verdicts[checked.verdict] += 1
            if checked.verdict == "obeyed":
                return self._source(peer, datagram, checked), checked.payload
            if checked.verdict in _ALWAYS_SAID:
                self._complain(checked, peer)
            if checked.answer and self._may_answer(checked.key_id, peer):
                await self._node.send(peer, checked.answer)

    def _source(self, peer: bytes, datagram: bytes, checked: Checked) -> SourceAddress:
        source = SourceAddress(peer)
        source.size = len(datagram)
        if checked.verdict == "obeyed":
            source.station = self._keyring.station_of_datagram(checked.key_id) or ""
            source.key_id, source.sequence = checked.key_id, checked.sequence
        return source

    def _another(self) -> tuple[bytes, bytes] | None:
        with contextlib.suppress(trio.WouldBlock):
            return self._node.recv_nowait()
        return None

    def _may_answer(self, key_id: bytes, peer: bytes) -> bool:
        now = trio.current_time()
        if now - self._answered.get((key_id, peer), -math.inf) < ANSWER_INTERVAL:
            return False
        if len(self._answered) >= _ADDRESSES_MAX:
            self._answered.clear()
        self._answered[key_id, peer] = now
        return True

    def _complain(self, checked: Checked, peer: bytes) -> None:
        now = trio.current_time()
        if now - self._said_at < COMPLAINT_INTERVAL:
            self._unsaid += 1
            return
        self._log.warning(
            "a control datagram was dropped",
            reason=checked.verdict,
            peer=peer.decode(),
            station=self._keyring.station_of_datagram(checked.key_id),
            unsaid=self._unsaid,
            **_REMEDIES.get(checked.verdict, {}),
        )
        self._said_at, self._unsaid = now, 0


class StationNode(DatagramNode):
    """A driver's station's node: signs what it sends. Somebody has to be in `recv` meanwhile, as `rt.remote.Client` is.

    What is sent before the robot has told its session is lost; a gamepad is sent again and again anyhow.

    Args:
        host: Of the robot.
        port: Of its control address, `port_base` + 2.
        bundle: The station's key; None for a robot that wants none.
    """

    def __init__(self, host: str, port: int, bundle: Bundle | None) -> None:
        super().__init__(host, port, bind=False)
        self._signer = Signer(bundle.datagram) if bundle else None
        self._refused: Refused | None = None
        self._refused_at = -math.inf
        self._log = log.get_logger()

    @property
    def is_ready(self) -> bool:
        """Whether the robot obeys what is sent: it has told its session, or no key is used."""
        return self._signer is None or self._signer.session != NO_SESSION

    @property
    def refused(self) -> Refused | None:
        """Which station has control while the robot refuses the gamepads of this one; None while it does not.

        `take_control` of broker-service takes control over. What the robot says is known up to `REFUSAL_LIFE` s late.
        """
        return self._refused if trio.current_time() < self._refused_at + REFUSAL_LIFE else None

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Sign and send one datagram; see `DatagramNode.send`."""
        await super().send(peer, self._signer.sign(payload) if self._signer else payload)

    async def recv(self) -> tuple[bytes, bytes]:
        """Handle the robot's answers and notices, and wait for anything else; see `DatagramNode.recv`."""
        while True:
            peer, datagram = await super().recv()
            if self._signer is not None and self._signer.hear(datagram):
                continue
            notice = self._signer.read_notice(datagram) if self._signer else datagram
            if notice is None or not self._note(notice):
                return peer, datagram

    def _note(self, notice: bytes) -> bool:
        """Note that the robot refuses this station's gamepads; False for any other notice."""
        try:
            refused = decode_refused(notice)
        except RemoteProtocolError:
            return False
        if self.refused is None:
            self._log.warning(
                "gamepads refused: another station has control",
                commander=refused.by,
                station=refused.you,
                remedy="`rt call take_control` at this station takes it over",
            )
        self._refused, self._refused_at = refused, trio.current_time()
        return True
