"""The root's decision whether devices may move: only while a brake is ready and knows every line.

A brake that ends is restarted at once. For so long (`GRACE`) a mode goes on without it; then
nothing moves until a brake is ready again and the device process has told it all lines.

Invariants: nothing may move before the first brake was ready, and nothing from `GRACE` after the
last moment at which one was ready; while one is ready, the brake bars nothing. Ends of the brake in
a row do not lengthen the time.

Pure: no clock and no input or output. Times are seconds.
"""

from typing import Final

GRACE: Final = 1.0
"""How long a mode goes on without a brake (s)."""
WAITING: Final = "waits for the device process"
"""The status of a brake that does not know every line."""
_SUFFIX: Final = " lines"


def watching(lines: int) -> str:
    """The status of a brake that knows every line."""
    return f"{lines}{_SUFFIX}"


def is_watching(status: str) -> bool:
    """Whether a status is that of a brake that knows every line."""
    return status.endswith(_SUFFIX)


class BrakeWatch:
    """Whether devices may move.

    Attributes:
        barred: Whether nothing may move, because no brake is ready.
        began: Whether a brake was ever ready.
    """

    def __init__(self) -> None:
        self.barred = True
        self.began = False
        self._since: float | None = None

    @property
    def due(self) -> float | None:
        """When `look` bars if no brake is ready before; None for never."""
        return None if self.barred or self._since is None else self._since + GRACE

    def note(self, now: float, *, ready: bool) -> bool:
        """Note whether a brake is ready that knows every line; True if devices may move again because of that."""
        if not ready:
            if self._since is None:
                self._since = now
            return False
        self._since = None
        self.began = True
        lifted, self.barred = self.barred, False
        return lifted

    def look(self, now: float) -> bool:
        """Bar if no brake has been ready for too long; True if it was not barred before."""
        due = self.due
        if due is None or now < due:
            return False
        self.barred = True
        return True


def refusal(state: str, reason: str, status: str) -> str:
    """Why nothing may move and what to do, in a sentence.

    Args:
        state: The state of the brake's process for its supervisor.
        reason: Why it is in that state.
        status: The brake's own status.
    """
    why = f"it {status}" if state == "ready" else f"it is {state}: {reason}"
    return (
        f"nothing may move, because the brake, which disables devices when a process ends, is not ready ({why});"
        " it is restarted by itself: wait until `rt call status` shows it as ready, or see `rt logs`"
    )
