"""Faults of an emulated device, decided by a seed.

Pure: frames and the time in, decisions out.

Invariant: each device has one random generator for all decisions, so the same seed, UID and order
    of calls reproduce the same faults.
"""

import enum
import math
import random
from collections.abc import Iterable
from typing import Final

import msgspec

from rt.errors import DeviceError
from rt.text import nearest

FREEZE_TIME: Final = 3.0
"""How long a frozen device stays frozen, in s."""

_JITTER: Final = 0.5
_MAX_RECONNECT_DELAY: Final = 0.5
_MAX_INSERTED: Final = 8


class FaultKind(enum.StrEnum):
    """The faults, by their names on the command line."""

    DROP = "drop"
    DELAY = "delay"
    CORRUPT = "corrupt"
    DISCONNECT = "disconnect"
    FREEZE = "freeze"


class _Limits(msgspec.Struct, frozen=True):
    default: float
    least: float
    most: float
    unit: str


_LIMITS: Final = {
    FaultKind.DROP: _Limits(0.1, 0.0, 1.0, "of the frames"),
    FaultKind.DELAY: _Limits(0.1, 0.0, 10.0, "s"),
    FaultKind.CORRUPT: _Limits(0.1, 0.0, 1.0, "of the frames"),
    FaultKind.DISCONNECT: _Limits(2.0, 0.1, 3600.0, "s"),
    FaultKind.FREEZE: _Limits(5.0, 0.1, 3600.0, "s"),
}


class Fault(msgspec.Struct, frozen=True):
    """A fault and its intensity.

    Attributes:
        kind: The fault.
        value: The fraction of frames (0 to 1) that is dropped or corrupted, the maximum delay of a
            frame (s), or the approximate time between two disconnections or freezes (s).
    """

    kind: FaultKind
    value: float

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"


def parse_fault(text: str) -> Fault:
    """Parse ``KIND`` or ``KIND=VALUE``.

    Raises:
        DeviceError: The kind is unknown, or the value is out of range.
    """
    word, equals, number = text.partition("=")
    try:
        kind = FaultKind(word.strip())
    except ValueError:
        kinds = ", ".join(FaultKind)
        raise DeviceError(
            f"--fault {text}: unknown fault {word.strip()!r}; use {kinds}"
            f"{nearest(word.strip(), FaultKind)}",
            fault=text,
        ) from None
    limits = _LIMITS[kind]
    if not equals:
        return Fault(kind, limits.default)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not limits.least <= value <= limits.most:
        raise DeviceError(
            f"--fault {text}: {kind} must be {limits.least:g} to {limits.most:g} {limits.unit}, "
            f"not {number!r}",
            fault=text,
        )
    return Fault(kind, value)


def parse_faults(texts: Iterable[str]) -> tuple[Fault, ...]:
    """Parse several faults, each kind at most once.

    Raises:
        DeviceError: A fault is invalid, or a kind is given twice.
    """
    faults: dict[FaultKind, Fault] = {}
    for text in texts:
        fault = parse_fault(text)
        if fault.kind in faults:
            raise DeviceError(
                f"--fault {text}: {fault.kind} is given twice; one value applies to all devices",
                fault=text,
            )
        faults[fault.kind] = fault
    return tuple(faults.values())


class Faults:
    """The faults of one device, on all of its lines. Times are those of one clock, in s.

    Args:
        faults: The kinds of faults, each at most once.
        seed: The seed of the whole emulation.
        uid: The device's UID.
    """

    def __init__(self, faults: Iterable[Fault], seed: int, uid: int) -> None:
        values = {fault.kind: fault.value for fault in faults}
        self._drop = values.get(FaultKind.DROP, 0.0)
        self._delay = values.get(FaultKind.DELAY, 0.0)
        self._corrupt = values.get(FaultKind.CORRUPT, 0.0)
        self._disconnect = values.get(FaultKind.DISCONNECT, math.inf)
        self._freeze = values.get(FaultKind.FREEZE, math.inf)
        self._random = random.Random(f"{seed}:{uid}")  # noqa: S311 - repeatable, not secret
        self._frozen_from: float | None = None

    @property
    def disconnects(self) -> bool:
        """Whether the line is closed now and then."""
        return self._disconnect < math.inf

    def transform(self, frame: bytes) -> bytes:
        """Return what arrives of a frame with its delimiter: the same, other bytes, or none."""
        if self._drop and self._random.random() < self._drop:
            return b""
        if self._corrupt and self._random.random() < self._corrupt:
            return self._corrupt_frame(frame)
        return frame

    def next_delay(self) -> float:
        """Return the delay of the next frame, in s."""
        return self._random.uniform(0.0, self._delay) if self._delay else 0.0

    def lifetime(self) -> float:
        """Return how long the line that begins now stays open, in s; may be infinite."""
        return self._jittered(self._disconnect) if self.disconnects else math.inf

    def ends_with_reset(self) -> bool:
        """Return whether the line that ends now ends with a reset."""
        return self._random.random() < 0.5

    def reconnect_delay(self) -> float:
        """Return how long a device whose line has ended stays away, in s."""
        return self._random.uniform(0.0, _MAX_RECONNECT_DELAY) if self.disconnects else 0.0

    def frozen_until(self, now: float) -> float:
        """Return when the device thaws, or ``now`` if it is not frozen.

        The first call starts the schedule of freezes.
        """
        if self._freeze == math.inf:
            return now
        if self._frozen_from is None:
            self._frozen_from = now + self._jittered(self._freeze)
        while now >= self._frozen_from + FREEZE_TIME:
            self._frozen_from += FREEZE_TIME + self._jittered(self._freeze)
        return self._frozen_from + FREEZE_TIME if now >= self._frozen_from else now

    def _jittered(self, seconds: float) -> float:
        return seconds * self._random.uniform(1 - _JITTER, 1 + _JITTER)

    def _corrupt_frame(self, frame: bytes) -> bytes:
        position = self._random.randrange(len(frame))
        match self._random.randrange(3):
            case 0:
                flipped = frame[position] ^ self._random.randrange(1, 256)
                return frame[:position] + bytes((flipped,)) + frame[position + 1 :]
            case 1:
                noise = self._random.randbytes(self._random.randint(1, _MAX_INSERTED))
                return frame[:position] + noise + frame[position:]
            case _:
                return frame[:position]
