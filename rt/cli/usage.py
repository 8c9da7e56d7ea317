"""What a person is told who calls a verb in a wrong way: one sentence in rt's words, with the place, what came, and what is allowed."""

import math
from typing import Any

import click

from rt.errors import ConfigError

_QUOTE = "'"
_QUOTES = "'\""


class Number(click.ParamType[float]):
    """A number between two limits, both allowed; never NaN, which is between none.

    Args:
        least: The smallest one.
        most: The greatest one.
        above: One that it has to be greater than, instead of `least`.
        whole: Whether it has to be an integer.
    """

    name = "number"

    def __init__(
        self, least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf, whole: bool = False
    ) -> None:
        self._least = least
        self._most = most
        self._above = above
        self._whole = whole

    @property
    def allowed(self) -> str:
        """What may be given, in words as those of `rt.config`."""
        sort = "a whole number" if self._whole else "a number"
        if math.isfinite(self._above):
            upper = f" and at most {self._most:g}" if math.isfinite(self._most) else ""
            return f"{sort} above {self._above:g}{upper}"
        if math.isfinite(self._least) and math.isfinite(self._most):
            return f"{sort} from {self._least:g} to {self._most:g}"
        return f"{sort} of at least {self._least:g}" if math.isfinite(self._least) else sort

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, an int if it has to be whole."""
        try:
            number = int(value) if self._whole else float(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not {self.allowed}", param, ctx)
        if not (self._least <= number <= self._most and number > self._above):
            self.fail(f"{value!r} is not {self.allowed}", param, ctx)
        return number


def sentence(error: click.ClickException) -> str:
    """Return what is told of an error that click has found."""
    match error:
        case click.MissingParameter():
            return f"{_place(error)} is missing"
        case click.BadParameter(param=click.Parameter(type=click.Choice() as choice)):
            from rt.config import nearest

            came = error.message.partition(" is not ")[0]
            words = [str(each) for each in choice.choices]
            return f"{_place(error)}: {came} is not one of {', '.join(words)}{nearest(came.strip(_QUOTES), words)}"
        case click.BadParameter():
            return f"{_place(error)}: {_plain(error.message)}"
        case click.BadOptionUsage():
            return f"{error.option_name} {_plain(error.message).rpartition(f'{error.option_name}{_QUOTE} ')[2]}"
        case click.NoSuchCommand(ctx=click.Context(command=click.Group() as group) as context):
            from rt.config import nearest

            known = group.list_commands(context)
            hint = nearest(error.command_name, known) or f"; there are {', '.join(known)}"
            return f"{context.command_path} has no verb {error.command_name!r}{hint}"
    return _plain(error.format_message())


def _place(error: click.BadParameter) -> str:
    match error.param:
        case click.Option(opts=names):
            return max(names, key=len)
        case click.Parameter() as argument:
            return argument.human_readable_name.strip("[].")
    return "an argument"


def _plain(message: str) -> str:
    """What click writes as a sentence, as the second half of one."""
    return f"{message[:1].lower()}{message[1:]}".removesuffix(".")


def unknown_flag(error: click.NoSuchOption) -> ConfigError:
    """Return the error of a flag that no option has, in the words of `rt.config`."""
    similar = [each for each in error.possibilities or [] if each.startswith("--")]
    hint = f"; did you mean {similar[0]}?" if similar else "; the verb's --help lists its flags"
    if error.option_name in {"-v", "-V"}:
        hint = "; `rt --version` tells the version, --log-level debug logs more"
    return ConfigError(f"{error.option_name}: unknown flag{hint}", flag=error.option_name)
