"""The type of flags that take a number."""

import math
from typing import Any

import click


class Number(click.ParamType[float]):
    """A number within limits. NaN is refused.

    Args:
        least: Minimum, inclusive.
        most: Maximum, inclusive.
        above: Minimum, exclusive, instead of `least`.
        whole: Whether the number must be an integer.
    """

    name = "number"

    def __init__(
        self,
        least: float = -math.inf,
        most: float = math.inf,
        *,
        above: float = -math.inf,
        whole: bool = False,
    ) -> None:
        self._least = least
        self._most = most
        self._above = above
        self._whole = whole

    @property
    def allowed(self) -> str:
        """A description of the allowed numbers, in the words of `rt.config`."""
        noun = "a whole number" if self._whole else "a number"
        if math.isfinite(self._above):
            upper = f" and at most {self._most:g}" if math.isfinite(self._most) else ""
            return f"{noun} above {self._above:g}{upper}"
        if math.isfinite(self._least) and math.isfinite(self._most):
            return f"{noun} from {self._least:g} to {self._most:g}"
        return f"{noun} of at least {self._least:g}" if math.isfinite(self._least) else noun

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, an int if `whole` is set."""
        try:
            number = int(value) if self._whole else float(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not {self.allowed}", param, ctx)
        if not (self._least <= number <= self._most and number > self._above):
            self.fail(f"{value!r} is not {self.allowed}", param, ctx)
        return number
