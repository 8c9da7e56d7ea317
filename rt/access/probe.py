"""Whether a robot on another machine lets us in, and if not, why; said at once instead of by a time-out.

libzmq tries for ever and tells a monitor what happens; what of that is final is decided here.
"""

from urllib.parse import urlsplit

import trio
import zmq

from rt.access.authenticator import curve_options
from rt.access.bundle import Bundle
from rt.errors import ConfigError, RemoteCallError
from rt.transport.monitor import parse_event
from rt.transport.zmq_socket import Socket

TIMEOUT = 5.0
"""How long to wait for a machine that says nothing at all, in s."""

_TRIES = 5
"""Connections that have to end without a word before that counts. Who wants a key, and who knows none, hangs up too, and it is a
matter of luck whether the reason arrives before.
"""

_WANTS_KEY = "wants a key: give the file that `rt keys new NAME` made there with --key"
_MISMATCH = 0x11000002  # zmq.h: ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH


def parse_robot_address(address: str) -> tuple[str, int]:
    """Host and port of the address of a robot.

    Raises:
        ConfigError: It has another form than `tcp://HOST:PORT`, or the host is an IPv6 address.

    Examples:
        >>> parse_robot("tcp://robot.local:6000")
        ('robot.local', 6000)
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host and ":" in host:
        raise ConfigError(
            f"{address}: robots are reached by IPv4; write such an address, or a name",
            address=address,
        )
    if parts.scheme != "tcp" or not host or not port or parts.path:
        raise ConfigError(
            f"{address} is no address of a robot; write tcp://HOST:PORT, as tcp://robot.local:6000",
            address=address,
        )
    return host, port


async def probe(
    address: str,
    bundle: Bundle | None,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - the error has to say in how many seconds
    socket_type: int = zmq.DEALER,
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
) -> None:
    """Make sure that a robot lets us in.

    A checkpoint. A cancel leaves nothing open.

    Args:
        address: `tcp://HOST:PORT`.
        bundle: Our key, or None for a robot that needs none.
        timeout: How long to wait at most, in s.
        socket_type: What the robot expects there: DEALER at its router, SUB at its log.
        context: ZMQ context; by default the one of the process.

    Raises:
        RemoteCallError: It does not, or nothing is there; says which, and what to do.
        ConfigError: The address is none, or its host is not known.
    """
    host, port = parse_robot_address(address)
    try:
        # libzmq looks for an IPv4 address only, and would try for ever if there is none.
        await trio.socket.getaddrinfo(host, port, trio.socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"{address}: the host {host} is not known: {error.strerror}; use the robot's IP address",
            address=address,
        ) from None
    with Socket(
        socket_type, options=curve_options(bundle) if bundle else {}, context=context
    ) as socket:
        monitor = socket.monitor(zmq.EVENT_ALL)
        with trio.move_on_after(timeout):
            socket.connect(address)
            reason = await _outcome(monitor, address, bundle)
            if reason:
                raise RemoteCallError(reason, address=address)
            return
    raise RemoteCallError(
        f"{address} did not answer within {timeout:g} s; is it the address of a robot?",
        address=address,
    )


async def _outcome(monitor: Socket, address: str, bundle: Bundle | None) -> str:
    """Nothing when we are in, else a sentence."""
    silent = 0
    while True:
        event, value = parse_event(await monitor.recv())
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return ""
        sentence = _sentence(event, value, address, bundle)
        if sentence:
            return sentence
        silent += event in {
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        }
        if silent == _TRIES:
            if bundle is None:
                return f"what answers at {address} {_WANTS_KEY}; or it is no robot"
            return (
                f"the robot at {address} is not the one that the key of {bundle.station!r} was made for, takes no keys,"
                " has another port, or has too many connections (its log says so; then try again)"
            )


def _sentence(event: int, value: int, address: str, bundle: Bundle | None) -> str:
    """What an event says for good; nothing if the next may say more."""
    if event == zmq.EVENT_CLOSED:
        return f"nothing listens at {address}: is the robot running, and open to the network (option bind)?"
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and bundle is not None:
        return (
            f"the robot at {address} does not know the key of {bundle.station!r}, or it was revoked:"
            f" `rt keys list`, at the robot, shows the keys that count, and `rt keys new NAME` makes one"
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MISMATCH:
        if bundle is None:
            return f"the robot at {address} {_WANTS_KEY}"
        return f"the robot at {address} takes no keys: leave --key away"
    return ""
