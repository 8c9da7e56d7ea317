"""Results of benchmarks, and the processor use of a process and of the machine."""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

MS = 1000.0


class Figure(msgspec.Struct):
    """A measured value and the upper bound that it must not exceed, or None for no bound."""

    name: str
    value: float
    unit: str
    bar: float | None
    runs: int

    @property
    def holds(self) -> bool:
        return self.bar is None or self.value <= self.bar


def p99(values: Sequence[float]) -> float:
    return sorted(values)[max(0, math.ceil(0.99 * len(values)) - 1)]


class Work:
    """The share of a core that a process uses from now on, by /proc/PID/stat."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/stat")
        self._began = time.monotonic()
        self._before = self._seconds()

    def share(self) -> float:
        return (self._seconds() - self._before) / (time.monotonic() - self._began)

    def _seconds(self) -> float:
        fields = self._path.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """The share of all cores that all processes use from now on."""

    def __init__(self) -> None:
        self._before = self._ticks()

    def share(self) -> float:
        busy, total = (
            now - before for now, before in zip(self._ticks(), self._before, strict=True)
        )
        return busy / total if total else 0.0

    @staticmethod
    def _ticks() -> tuple[int, int]:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
