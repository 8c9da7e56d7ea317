"""The checks of the doctor: how one is declared, and how all are run.

A check looks and says what it saw; it changes nothing that outlives it. A check that crashes is a
failed check and never ends the rest.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from rt.config import Config, nearest

Status = Literal["ok", "warn", "fail", "skip"]

# The families, in the order in which their checks run and are shown.
FAMILIES = ("system", "memory", "network", "serial", "catalog", "code", "log")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks look at.

    Attributes:
        config: The robot's options; the defaults where they could not be loaded.
        origins: Where each value was given.
        problem: Why the options could not be loaded, or nothing.
        directory: The working directory of the robot.
        running: The options of the robot that runs as this instance, which may have been started
            with others; None if none runs.
    """

    config: Config
    origins: Mapping[str, str] = {}
    problem: str = ""
    directory: Path
    running: Config | None = None

    @property
    def effective(self) -> Config:
        """The options of the running robot if there is one, else those of this directory."""
        return self.config if self.running is None else self.running

    @property
    def whose(self) -> str:
        """What messages about the `effective` options call the robot."""
        differs = self.running is not None and self.running != self.config
        return "the running robot" if differs else "the robot"


class Result(msgspec.Struct, frozen=True):
    """What a check says.

    Attributes:
        status: "ok", "warn" (the robot runs, but not as one would wish), "fail" (it does not),
            "skip" (not looked at).
        fact: What was seen.
        remedy: What to do about it; nothing for an "ok".
    """

    status: Status
    fact: str
    remedy: str = ""


class Finding(msgspec.Struct, frozen=True):
    """A check's result under the check's id, as `rt doctor --json` prints it."""

    id: str
    status: Status
    fact: str
    remedy: str


class Check(msgspec.Struct, frozen=True):
    """A declared check.

    Attributes:
        id: Its name for `--only` and for programs.
        meaning: What it looks at, one line.
        function: What looks.
        on_request: True if it only runs when it is asked for.
    """

    id: str
    meaning: str
    function: Callable[[Environment], Result]
    on_request: bool = False


_registered: dict[str, Check] = {}


def check(
    identifier: str, *, on_request: bool = False
) -> Callable[[Callable[[Environment], Result]], Callable[[Environment], Result]]:
    """Declare a function as a check; the first line of its docstring tells what it looks at.

    Raises:
        ValueError: The id is taken.
    """

    def declare(function: Callable[[Environment], Result]) -> Callable[[Environment], Result]:
        if identifier in _registered:
            raise ValueError(f"two checks have the id {identifier!r}")
        meaning = (function.__doc__ or "").partition("\n")[0].rstrip(".")
        _registered[identifier] = Check(identifier, meaning, function, on_request)
        return function

    return declare


def ok(fact: str) -> Result:
    """Return that all is well."""
    return Result("ok", fact)


def warn(fact: str, remedy: str) -> Result:
    """Return that the robot runs, but not as one would wish."""
    return Result("warn", fact, remedy)


def fail(fact: str, remedy: str) -> Result:
    """Return that the robot cannot run like this."""
    return Result("fail", fact, remedy)


def skip(fact: str) -> Result:
    """Return that there was nothing to look at."""
    return Result("skip", fact)


def checks() -> Mapping[str, Check]:
    """Return every declared check under its id, in the order in which they run."""
    families = [importlib.import_module(f"rt.doctor.{family}").__name__ for family in FAMILIES]
    # Whoever imported a family by itself must not change the order; a check from elsewhere comes
    # last.
    place = {family: number for number, family in enumerate(families)}
    ordered = sorted(
        _registered.values(), key=lambda each: place.get(each.function.__module__, len(place))
    )
    return MappingProxyType({each.id: each for each in ordered})


def examine(environment: Environment, only: Collection[str] = ()) -> list[Finding]:
    """Run the checks.

    Args:
        environment: What they look at.
        only: The ids of those to run; all but those on request when empty.

    Raises:
        LookupError: An id in `only` is unknown; the message names the nearest.
    """
    known = checks()
    for identifier in only:
        if identifier not in known:
            raise LookupError(f"there is no check {identifier!r}{nearest(identifier, known)}")
    chosen = [each for each in known.values() if each.id in only or not (only or each.on_request)]
    return [run_one(each, environment) for each in chosen]


def run_one(chosen: Check, environment: Environment) -> Finding:
    """Run one check; a crash is a finding too."""
    try:
        result = chosen.function(environment)
    except Exception as error:  # noqa: BLE001 - whatever a check dies of is what the report has to say
        result = fail(
            f"the check itself failed: {type(error).__name__}: {error}",
            "please report this to the makers of rt",
        )
    return Finding(chosen.id, result.status, result.fact, result.remedy)
