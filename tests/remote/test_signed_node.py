"""Signed control datagrams over loopback: stations, unknown keys, forgeries and replays."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
import trio

from rt.access.keyring import Keyring
from rt.protocol.signed_datagram import NO_SESSION, Signer
from rt.remote import Client, DatagramNode, Handler, Service, route
from rt.remote.signed_node import StationNode, VerifyingNode


class Sticks(Handler):
    def __init__(self) -> None:
        self.seen: list[int] = []

    @route(inline=True)
    def update_gamepads(self, update: int) -> None:
        self.seen.append(update)


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


@pytest.fixture
async def robot(ring: Keyring) -> AsyncIterator[VerifyingNode]:
    node = VerifyingNode("127.0.0.1", 0, ring, required=True)
    async with node:
        yield node


async def verdict(node: VerifyingNode, name: str, count: int = 1) -> None:
    """Wait for a number of datagrams with a verdict."""
    with trio.fail_after(30):
        while node.verdicts[name] < count:  # type: ignore[index]  # noqa: ASYNC110 - no event
            await trio.sleep(0.01)


async def test_station_drives_after_the_first_answer(ring: Keyring) -> None:
    key = ring.new("blue")
    ring.refresh()
    sticks = Sticks()
    node = VerifyingNode("127.0.0.1", 0, ring, required=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(Service(node, sticks).run)
        async with Client(StationNode("127.0.0.1", node.port, key)) as station:
            with trio.fail_after(30):
                number = 0
                while len(sticks.seen) < 3:
                    number += 1
                    await station.call.update_gamepads(number, notification=True)
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert sticks.seen == sorted(sticks.seen)
    assert node.verdicts["obeyed"] == len(sticks.seen)
    assert node.verdicts["session"] >= 1


async def test_invalid_and_replayed_datagrams_are_dropped_and_counted(
    ring: Keyring, robot: VerifyingNode
) -> None:
    key, stranger = ring.new("blue"), Keyring(ring.directory.parent / "elsewhere").new("blue")
    ring.refresh()
    taken: list[bytes] = []

    async def obey() -> None:
        while True:
            taken.append((await robot.recv())[1])

    with structlog.testing.capture_logs() as logs:
        robot._log = structlog.get_logger()
        async with (
            trio.open_nursery() as nursery,
            DatagramNode("127.0.0.1", robot.port, bind=False) as air,
        ):
            nursery.start_soon(obey)
            signer = Signer(key.datagram)
            await air.send(b"", signer.sign(b"1"))
            assert signer.handle_answer((await air.recv())[1])
            good = signer.sign(b"2")
            await air.send(b"", good)
            await verdict(robot, "obeyed")
            for _ in range(3):
                await air.send(b"", good)
            await air.send(b"", Signer(stranger.datagram).sign(b"3"))
            await air.send(b"", good[:-1] + bytes([good[-1] ^ 1]))
            await air.send(b"", b"\x93plain")
            await air.send(b"", good[:30])
            for name, count in (
                ("replayed", 3),
                ("unknown", 1),
                ("forged", 1),
                ("unsigned", 1),
                ("malformed", 1),
            ):
                await verdict(robot, name, count)
            ring.revoke("blue")
            ring.refresh()
            await air.send(b"", signer.sign(b"4"))
            await verdict(robot, "unknown", 2)
            nursery.cancel_scope.cancel()
    assert taken == [b"2"]
    assert robot.verdicts["obeyed"] == 1
    dropped = [entry for entry in logs if entry["event"] == "control datagram dropped"]
    assert len(dropped) == 1, "a stranger could fill the log"
    assert (dropped[0]["reason"], dropped[0]["station"]) == ("replayed", "blue")


async def test_invalid_signature_is_refused_even_without_required_keys(ring: Keyring) -> None:
    key = ring.new("blue")
    ring.refresh()
    node = VerifyingNode("127.0.0.1", 0, ring, required=False)
    async with node, DatagramNode("127.0.0.1", node.port, bind=False) as air:
        with trio.fail_after(30):
            await air.send(b"", b"plain")
            assert (await node.recv())[1] == b"plain"
            signed = Signer(key.datagram).sign(b"x")
            await air.send(b"", signed[:-1] + bytes([signed[-1] ^ 1]))
            await air.send(b"", b"plain again")
            assert (await node.recv())[1] == b"plain again"
    assert node.verdicts["forged"] == 1


async def test_answers_to_one_address_are_rate_limited(ring: Keyring, robot: VerifyingNode) -> None:
    key = ring.new("blue")
    ring.refresh()
    async with (
        trio.open_nursery() as nursery,
        DatagramNode("127.0.0.1", robot.port, bind=False) as air,
    ):
        nursery.start_soon(robot.recv)
        signer = Signer(key.datagram)
        for _ in range(50):
            assert signer.session == NO_SESSION
            await air.send(b"", signer.sign(b""))
        await verdict(robot, "session", 50)
        assert robot.counters.sent < 25
        nursery.cancel_scope.cancel()


async def test_flood_is_read_in_bursts_and_hides_no_station(
    ring: Keyring, robot: VerifyingNode
) -> None:
    key = ring.new("blue")
    ring.refresh()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    signer = Signer(key.datagram)
    signer.session = robot._verifier._session
    async with (
        DatagramNode("127.0.0.1", robot.port, bind=False) as air,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            for _ in range(100):
                await air.send(b"", b"junk")
            await air.send(b"", signer.sign(b"a stick"))
        nursery.start_soon(count_turns)
        with trio.fail_after(10):
            for _ in range(2):
                assert (await robot.recv())[1] == b"a stick"
        nursery.cancel_scope.cancel()
    assert (robot.verdicts["unsigned"], robot.verdicts["obeyed"]) == (200, 2)
    assert 2 <= turns < 20
