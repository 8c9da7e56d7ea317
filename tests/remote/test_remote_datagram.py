"""Datagrams over the loopback interface: unicast, multicast, and network errors."""

import errno
import socket

import pytest
import trio

from rt.errors import ConfigError, InstanceBusyError, LocalProtocolError
from rt.remote import DatagramNode
from rt.remote.datagram import MAX_DATAGRAM

GROUP = "224.1.1.1"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_datagram_is_received_and_answered() -> None:
    with trio.fail_after(30):
        async with (
            DatagramNode("localhost", 0, bind=True) as server,
            DatagramNode.from_address(f"udp://127.0.0.1:{server.port}", bind=False) as client,
        ):
            await client.send(b"", b"question")
            peer, payload = await server.recv()
            assert payload == b"question"
            await server.send(peer, b"answer")
            assert await client.recv() == (f"127.0.0.1:{server.port}".encode(), b"answer")
            assert (client.counters.sent, client.counters.received) == (1, 1)


async def test_every_member_of_a_group_receives() -> None:
    address = f"udp://{GROUP}:{free_port()}"
    with trio.fail_after(30):
        async with (
            DatagramNode.from_address(address, bind=True) as first,
            DatagramNode.from_address(address, bind=True) as second,
            DatagramNode.from_address(address, bind=False) as sender,
        ):
            await sender.send(b"", b"news")
            assert [(await first.recv())[1], (await second.recv())[1]] == [b"news", b"news"]


async def test_multicast_goes_over_the_loopback_interface_only() -> None:
    async with DatagramNode(GROUP, free_port(), bind=False) as sender:
        raw = sender._open()
        interface = raw.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4)
        assert interface == socket.inet_aton("127.0.0.1")
        assert raw.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 1


async def test_payload_beyond_the_maximum_is_refused() -> None:
    with trio.fail_after(30):
        async with (
            DatagramNode("127.0.0.1", 0, bind=True) as server,
            DatagramNode("127.0.0.1", server.port, bind=False) as client,
        ):
            await client.send(b"", bytes(MAX_DATAGRAM))
            assert len((await server.recv())[1]) == MAX_DATAGRAM
            with pytest.raises(LocalProtocolError, match="payload of 65508 bytes exceeds"):
                await client.send(b"", bytes(MAX_DATAGRAM + 1))


async def test_closed_port_does_not_stop_the_sender() -> None:
    port = free_port()
    with trio.fail_after(30):
        async with DatagramNode("127.0.0.1", port, bind=False) as client:
            for _ in range(20):
                await client.send(b"", b"anybody?")
            async with DatagramNode("127.0.0.1", port, bind=True) as server:
                await client.send(b"", b"now")
                assert (await server.recv())[1] == b"now"
        assert client.counters.sent + client.counters.dropped == 21


async def test_cancelled_receive_loses_no_datagram() -> None:
    with trio.fail_after(30):
        async with (
            DatagramNode("127.0.0.1", 0, bind=True) as server,
            DatagramNode("127.0.0.1", server.port, bind=False) as client,
        ):
            await client.send(b"", b"kept")
            with trio.CancelScope() as scope:
                scope.cancel()
                await server.recv()
            assert (await server.recv())[1] == b"kept"


async def test_port_in_use_is_reported() -> None:
    async with DatagramNode("127.0.0.1", 0, bind=True) as first:
        with pytest.raises(InstanceBusyError, match=f"udp://127.0.0.1:{first.port} is in use"):
            await DatagramNode("127.0.0.1", first.port, bind=True).__aenter__()


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:1", "udp://127.0.0.1", "udp://:1", "udp://[::1]:1", "udp://a:b", "x"],
)
def test_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="udp://host:port"):
        DatagramNode.from_address(address, bind=False)


async def test_bound_node_refuses_invalid_peers() -> None:
    async with DatagramNode("127.0.0.1", 0, bind=True) as server:
        for peer in (b"", b"name", b"1.2.3.4:port"):
            with pytest.raises(LocalProtocolError, match="invalid peer"):
                await server.send(peer, b"x")


async def test_error_names_the_state_of_the_node() -> None:
    node = DatagramNode("127.0.0.1", 0, bind=True)
    with pytest.raises(trio.ClosedResourceError, match="not open yet"):
        await node.recv()
    async with node:
        with pytest.raises(trio.BusyResourceError, match="already open"):
            await node.__aenter__()
    with pytest.raises(trio.ClosedResourceError, match="node is closed"):
        await node.recv()
    with pytest.raises(trio.ClosedResourceError, match="create a new one"):
        await node.__aenter__()


async def test_missing_route_to_a_group_does_not_stop_the_sender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unreachable(*_args: object) -> int:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EINVAL, "no route")

    async with DatagramNode(GROUP, free_port(), bind=False) as sender:
        with pytest.raises(OSError, match="not connected"):
            sender._open().getpeername()
        monkeypatch.setattr(sender._open(), "sendto", unreachable)
        await sender.send(b"", b"news")
        assert sender.counters.dropped == 1


@pytest.mark.parametrize("interface", ["lo", "127.0.0.1"])
async def test_interface_is_selected_by_name_or_address(interface: str) -> None:
    port = free_port()
    with trio.fail_after(30):
        async with (
            DatagramNode(GROUP, port, bind=True, interface=interface) as receiver,
            DatagramNode(GROUP, port, bind=False, interface=interface) as sender,
        ):
            await sender.send(b"", b"news")
            assert (await receiver.recv())[1] == b"news"


async def test_error_for_unknown_interface_lists_the_available_ones() -> None:
    with pytest.raises(ConfigError, match=r"no network interface wlan99; available are .*lo"):
        await DatagramNode(GROUP, free_port(), bind=True, interface="wlan99").__aenter__()


@pytest.mark.parametrize("loopback", [True, False])
async def test_ttl_and_loopback_reach_the_socket(loopback: bool) -> None:
    async with DatagramNode.from_address(
        f"udp://{GROUP}:1", bind=False, ttl=7, loopback=loopback
    ) as node:
        raw = node._open()
        assert raw.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 7
        assert raw.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP) == loopback


def test_ttl_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 to 255"):
        DatagramNode(GROUP, 1, bind=False, ttl=256)
