"""Benchmarks of the operations of a buffer in one process, without contention."""

import os
import secrets
import statistics
import time
from collections.abc import Callable

from bench.figures import Figure
from support.robot import CATALOG, uid_of

from rt.buffer import BufferStore
from rt.protocol import frames
from rt.protocol.message import DevData

ROUNDS = 200
TIMES = 500


def median_of(operation: Callable[[], object]) -> float:
    """Return the median duration of one call (us) over many rounds, without the loop."""

    def once(call: Callable[[], object]) -> float:
        began = time.perf_counter_ns()
        for _ in range(TIMES):
            call()
        return (time.perf_counter_ns() - began) / TIMES / 1000

    def nothing() -> None:
        pass

    return statistics.median(once(operation) for _ in range(ROUNDS)) - statistics.median(
        once(nothing) for _ in range(ROUNDS)
    )


def operations() -> list[Figure]:
    """Measure reading, writing, and receiving a report of five parameters."""
    prefix = f"rt-bench-{os.getpid()}-{secrets.token_hex(4)}."
    with BufferStore(CATALOG, prefix) as store:
        buffer = store.get_or_open(uid_of("polar-bear"))
        try:
            buffer.valid = True
            peripheral = buffer.peripheral
            values = peripheral.names(peripheral.readable)
            assert len(values) == 5
            frame = frames.encode(DevData(*peripheral.pack(dict.fromkeys(values, 0.5))))
            reader = frames.FrameReader()

            def receive() -> None:
                (message,) = reader.feed(frame)
                assert isinstance(message, DevData)
                buffer.update(message)

            found = {
                "Buffer.get": (median_of(lambda: buffer.get("enc_pos")), 1.0),
                "Buffer.write": (median_of(lambda: buffer.write("enc_pos", 0.5)), 2.5),
                "decode and update of a DEV_DATA of 5 parameters": (median_of(receive), 6.0),
            }
        finally:
            type(buffer).unlink(f"{prefix}{peripheral.name}@{buffer_number()}")
    return [
        Figure(f"{name}, median", value, "us", bar, ROUNDS) for name, (value, bar) in found.items()
    ]


def buffer_number() -> int:
    return uid_of("polar-bear")
