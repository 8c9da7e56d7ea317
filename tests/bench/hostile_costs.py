"""Benchmark of how long one hostile call blocks all others of a process."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import trio
from bench.figures import MS, Figure
from support.hostile import Wire, answered, device_handler, modes_handler, payloads, unknown_methods

from rt import catalog, log
from rt.broker import Broker, GamepadFeed
from rt.broker.serving import Controls
from rt.buffer import BufferStore
from rt.buffer.arena import Arena
from rt.config import Config
from rt.remote import Handler, Service

REPEATS = 5
"""The number of repetitions, of which the fastest counts: other processes slow down the rest."""

_SKIPPED = {"lint"}
"""Methods that start a process for any arguments."""


def longest_steps() -> list[Figure]:
    """Measure the longest step of the event loop for each service, over all hostile calls."""
    log.configure(level="critical")
    with (
        tempfile.TemporaryDirectory() as folder,
        Arena("bench") as arena,
        modes_handler(arena.prefix) as modes,
    ):
        return [
            Figure(
                f"a call of {name} keeps others waiting, worst: {place}",
                seconds * MS,
                "ms",
                bar,
                REPEATS,
            )
            for name, handler, names, bar in (
                ("executor-service", *modes, 1.0),
                *_handlers(Path(folder)),
            )
            for seconds, place in [trio.run(_worst, handler, names)]
        ]


def _handlers(folder: Path) -> Iterator[tuple[str, Handler, list[str], float]]:
    device, names = device_handler()
    yield "device-service", device, names, 1.0
    feed = GamepadFeed(BufferStore(catalog.load(), "", shared=False))
    broker = Broker(Config(), feed, dict, state=folder / "state", directory=folder)
    yield "broker-service", broker, ["log_level", "dev_name.left"], 5.0
    yield "gamepads over UDP", Controls(broker), ["left_motor"], 5.0


async def _worst(handler: Handler, names: list[str]) -> tuple[float, str]:
    wire = Wire()
    service = Service(wire, handler)
    found: list[tuple[float, str]] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        calls = [("unknown", *each) for each in unknown_methods()]
        calls += [
            (name, *each)
            for name in service._routes
            if name not in _SKIPPED
            for each in payloads(name, names)
        ]
        for method, what, payload in calls:
            times = [(await answered(service, wire, payload))[0] for _ in range(REPEATS)]
            found.append((min(times), f"{method}, {what}"))
        nursery.cancel_scope.cancel()
    return max(found)
