"""The root's decision whether devices may move: only while a brake is ready and knows every line.

A brake that exits is restarted at once. A mode continues without it for `GRACE`; then nothing moves
until a brake is ready again and the device process has announced all lines to it.

Invariants: nothing may move before the first brake was ready, or later than `GRACE` after one was
last ready; while one is ready, nothing is barred. Repeated exits of the brake do not extend the
time.

Pure: no clock and no I/O. Times are seconds.
"""

from typing import Final

GRACE: Final = 1.0
"""Time (s) for which a mode continues without a brake."""
WAITING: Final = "waiting for the device process"
"""The status of a brake that does not know every line."""
_SUFFIX: Final = " lines"


def watching(lines: int) -> str:
    """Return the status of a brake that knows every line."""
    return f"{lines}{_SUFFIX}"


def is_watching(status: str) -> bool:
    """Return whether a status is that of a brake that knows every line."""
    return status.endswith(_SUFFIX)


class BrakeWatch:
    """Whether devices may move.

    Attributes:
        barred: Whether nothing may move because no brake is ready.
        began: Whether a brake was ever ready.
    """

    def __init__(self) -> None:
        self.barred = True
        self.began = False
        self._since: float | None = None

    @property
    def deadline(self) -> float | None:
        """When `check` bars unless a brake is ready before; None for never."""
        return None if self.barred or self._since is None else self._since + GRACE

    def update(self, now: float, *, ready: bool) -> bool:
        """Record whether a brake is ready that knows every line.

        Returns:
            Whether devices may move again as a result.
        """
        if not ready:
            if self._since is None:
                self._since = now
            return False
        self._since = None
        self.began = True
        lifted, self.barred = self.barred, False
        return lifted

    def check(self, now: float) -> bool:
        """Bar if no brake has been ready for too long.

        Returns:
            Whether it was not barred before.
        """
        deadline = self.deadline
        if deadline is None or now < deadline:
            return False
        self.barred = True
        return True


def refusal(state: str, reason: str, status: str) -> str:
    """Return a sentence that says why nothing may move and what to do.

    Args:
        state: The supervisor's state of the brake's process.
        reason: Why it is in that state.
        status: The brake's own status.
    """
    why = status if state == "ready" else f"{state}: {reason}"
    return (
        "nothing may move because the brake, which disables devices when a process dies, is not"
        f" ready ({why}); it restarts automatically: wait until `rt call status` shows it as ready,"
        " or see `rt logs`"
    )
