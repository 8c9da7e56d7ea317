"""A driver's station, or a stranger, as a program for another machine or network namespace.

station.py HOST PORT_BASE drive Y [KEY]     send gamepads until killed, first at rest; sign them if
                                            there is a key
station.py HOST PORT_BASE attack KEY        replay and forge datagrams of the station with a key
station.py HOST PORT_BASE listen [KEY]      print a log event if one is received
station.py HOST PORT_BASE plug              print whether a virtual Smart Device can connect
"""

import itertools
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
import zmq

from rt.access.authenticator import curve_options
from rt.access.keyring import Keyring
from rt.access.station_key import StationKey
from rt.protocol.datagrams import NEUTRAL, GamepadState, encode_gamepads
from rt.protocol.signed_datagram import Signer
from rt.remote import DatagramNode, SocketNode
from rt.remote.signed_node import StationNode

COPIES = 20
RESTS = 10
"""Updates at rest before the sticks move; some may be lost."""
PUSHES_AFTER = 50
"""Updates after which a station moves its sticks even if the robot refuses it."""
REST = encode_gamepads({0: NEUTRAL})


async def drive(host: str, base: int, y: str, key: str | None = None) -> None:
    node = StationNode(host, base + 2, StationKey.load(Path(key)) if key else None)
    payload = encode_gamepads({0: GamepadState(0.0, float(y), 0.0, 0.0, 0)})
    async with node, trio.open_nursery() as nursery:
        nursery.start_soon(receive, node)
        rests = 0
        for number in itertools.count():
            # The robot requires sticks at rest first, and accepts updates only after the station
            # has learned its session. A stranger never does, and moves the sticks anyway.
            is_accepted = node.is_ready and node.refused is None
            at_rest = rests < RESTS if is_accepted else number < PUSHES_AFTER
            rests = rests + 1 if is_accepted else 0
            await node.send(b"", REST if at_rest else payload)
            await trio.sleep(0.02)


async def receive(node: StationNode) -> None:
    while True:
        await node.recv()


async def attack(host: str, base: int, key: str) -> None:
    payload = encode_gamepads({0: GamepadState(0.0, 1.0, 0.0, 0.0, 0)})
    signer = Signer(StationKey.load(Path(key)).datagram)
    async with DatagramNode(host, base + 2, bind=False) as node:
        with trio.fail_after(20):
            while True:
                await node.send(b"", signer.sign(b""))
                if signer.handle_answer((await node.recv())[1]):
                    break
        neutral = encode_gamepads({0: GamepadState(0.0, 0.0, 0.0, 0.0, 0)})
        recorded = signer.sign(neutral)
        await node.send(b"", recorded)
        stranger = Signer(Keyring(Path("elsewhere")).new("x").datagram)
        stranger.session = signer.session
        for _ in range(COPIES):
            await node.send(b"", recorded)
            await node.send(b"", recorded[: -len(neutral) - 16] + payload + recorded[-16:])
            await node.send(b"", stranger.sign(payload))
            await node.send(b"", payload)
            await trio.sleep(0.001)


async def listen(host: str, base: int, key: str | None = None) -> None:
    options = curve_options(StationKey.load(Path(key))) if key else {}
    async with SocketNode(
        zmq.SUB, connections=[f"tcp://{host}:{base + 1}"], subscriptions=[b""], options=options
    ) as node:
        with trio.move_on_after(20 if key else 2):
            print(await node.recv())  # noqa: T201 - the result


async def plug(host: str, base: int) -> None:
    try:
        await (await trio.open_tcp_stream(host, base + 4)).aclose()
    except OSError:
        return
    print("connected")  # noqa: T201 - the result


if __name__ == "__main__":
    verbs: dict[str, Callable[..., Awaitable[None]]] = {
        "drive": drive,
        "attack": attack,
        "listen": listen,
        "plug": plug,
    }
    trio.run(lambda: verbs[sys.argv[3]](sys.argv[1], int(sys.argv[2]), *sys.argv[4:]))
