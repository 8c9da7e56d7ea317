"""A probe that checks whether a remote robot admits this client, and reports why if it does not.

libzmq itself retries without end and reports events to a monitor; the probe decides which of them
are final.
"""

from urllib.parse import urlsplit

import trio
import zmq

from rt.access.authenticator import curve_options
from rt.access.station_key import StationKey
from rt.errors import ConfigError, RemoteCallError
from rt.transport.zmq_socket import Socket, parse_event

TIMEOUT = 5.0
"""Default time limit, in s."""

_TRIES = 5
"""Connections that must close without a reason before the probe gives up.

A robot that requires or refuses a key closes the connection too, and the reason may arrive too
late.
"""

_REQUIRES_KEY = "requires a key; pass the file created by `rt keys new NAME` on the robot as --key"
_MISMATCH = 0x11000002  # zmq.h: ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH


def parse_robot_address(address: str) -> tuple[str, int]:
    """Return host and port of a robot's address.

    Raises:
        ConfigError: The address is not `tcp://HOST:PORT`, or the host is an IPv6 address.

    Examples:
        >>> parse_robot_address("tcp://robot.local:6000")
        ('robot.local', 6000)
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host and ":" in host:
        raise ConfigError(
            f"{address}: IPv6 is not supported; use an IPv4 address or a name", address=address
        )
    if parts.scheme != "tcp" or not host or not port or parts.path:
        raise ConfigError(
            f"invalid robot address {address}; use tcp://HOST:PORT, e.g. tcp://robot.local:6000",
            address=address,
        )
    return host, port


async def probe(
    address: str,
    station_key: StationKey | None,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - the error names the limit
    socket_type: int = zmq.DEALER,
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
) -> None:
    """Check that a robot admits this client.

    A checkpoint. If cancelled, the connection is closed.

    Args:
        address: `tcp://HOST:PORT`.
        station_key: The station key of this client; None for a robot that needs no key.
        timeout: Time limit, in s.
        socket_type: DEALER for the router, SUB for the log.
        context: ZMQ context; by default the one of the process.

    Raises:
        RemoteCallError: The robot refuses the client or does not answer; the message says why and
            what to do.
        ConfigError: The address is invalid, or its host cannot be resolved.
    """
    host, port = parse_robot_address(address)
    try:
        # libzmq only looks up IPv4 addresses, and retries without end if there is none.
        await trio.socket.getaddrinfo(host, port, trio.socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"cannot resolve host {host} of {address}: {error.strerror}; "
            "use the robot's IP address",
            address=address,
        ) from None
    with Socket(
        socket_type, options=curve_options(station_key) if station_key else {}, context=context
    ) as socket:
        monitor = socket.monitor(zmq.EVENT_ALL)
        with trio.move_on_after(timeout):
            socket.connect(address)
            reason = await _outcome(monitor, address, station_key)
            if reason:
                raise RemoteCallError(reason, address=address)
            return
    raise RemoteCallError(
        f"{address} did not answer within {timeout:g} s; is it the address of a robot?",
        address=address,
    )


async def _outcome(monitor: Socket, address: str, station_key: StationKey | None) -> str:
    """Return an empty string if the robot admits the client, else an error message."""
    silent = 0
    while True:
        event, value = parse_event(await monitor.recv())
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return ""
        error = _final_error(event, value, address, station_key)
        if error:
            return error
        silent += event in {
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        }
        if silent == _TRIES:
            if station_key is None:
                return f"{address} is not a robot, or {_REQUIRES_KEY}"
            return (
                f"the robot at {address} did not accept the key of {station_key.station!r}: "
                "the key is for another robot, the robot uses no keys, the port is wrong, or the "
                "robot has too many connections (see its log)"
            )


def _final_error(event: int, value: int, address: str, station_key: StationKey | None) -> str:
    """Return the error message of a final event; an empty string for other events."""
    if event == zmq.EVENT_CLOSED:
        return (
            f"nothing listens at {address}; "
            "is the robot running and open to the network (option bind)?"
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and station_key is not None:
        return (
            f"the key of {station_key.station!r} is unknown to the robot at {address}, or revoked; "
            "run `rt keys list` on the robot to list keys, `rt keys new NAME` to create one"
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MISMATCH:
        if station_key is None:
            return f"the robot at {address} {_REQUIRES_KEY}"
        return f"the robot at {address} uses no keys; omit --key"
    return ""
