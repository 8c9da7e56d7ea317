"""The registry of checks: declaration and execution.

Invariant: a check changes nothing that outlives it. A check that crashes counts as failed and does
not affect the others.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from rt.config import Config
from rt.text import nearest

Status = Literal["ok", "warn", "fail", "skip"]

# The families, in the order in which their checks run and are shown.
FAMILIES = ("system", "memory", "network", "serial", "files")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The input of the checks.

    Attributes:
        config: Options of the robot; the defaults if they could not be loaded.
        origins: Origin of each value.
        problem: Why the options could not be loaded, or "".
        directory: Working directory of the robot.
        running: Options of the running robot of this instance, which may differ from ``config``;
            None if none is running.
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
    """The result of a check.

    Attributes:
        status: "ok", "warn" (the robot runs with limitations), "fail" (the robot cannot run), or
            "skip" (not checked).
        fact: What was found.
        remedy: What to do about it; "" for "ok".
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
    """Declare a function as a check; the first line of its docstring is the meaning.

    Args:
        identifier: Unique id.
        on_request: Whether the check runs only if it is named.

    Raises:
        ValueError: Another check has the id.
    """

    def declare(function: Callable[[Environment], Result]) -> Callable[[Environment], Result]:
        if identifier in _registered:
            raise ValueError(f"two checks have the id {identifier!r}")
        meaning = (function.__doc__ or "").partition("\n")[0].rstrip(".")
        _registered[identifier] = Check(identifier, meaning, function, on_request)
        return function

    return declare


def ok(fact: str) -> Result:
    """Return a result without a problem."""
    return Result("ok", fact)


def warn(fact: str, remedy: str) -> Result:
    """Return a result with which the robot runs with limitations."""
    return Result("warn", fact, remedy)


def fail(fact: str, remedy: str) -> Result:
    """Return a result with which the robot cannot run."""
    return Result("fail", fact, remedy)


def skip(fact: str) -> Result:
    """Return a result for something that was not checked."""
    return Result("skip", fact)


def checks() -> Mapping[str, Check]:
    """Return all checks by id, in the order in which they run."""
    families = [importlib.import_module(f"rt.doctor.{family}").__name__ for family in FAMILIES]
    # The order does not depend on which family was imported first; other checks come last.
    place = {family: number for number, family in enumerate(families)}
    ordered = sorted(
        _registered.values(), key=lambda each: place.get(each.function.__module__, len(place))
    )
    return MappingProxyType({each.id: each for each in ordered})


def examine(environment: Environment, only: Collection[str] = ()) -> list[Finding]:
    """Run the checks.

    Args:
        environment: Input of the checks.
        only: Ids of the checks to run; by default all that are not on request.

    Raises:
        LookupError: An id in `only` is unknown; the message names the nearest.
    """
    known = checks()
    for identifier in only:
        if identifier not in known:
            raise LookupError(f"unknown check {identifier!r}{nearest(identifier, known)}")
    chosen = [each for each in known.values() if each.id in only or not (only or each.on_request)]
    return [run_one(each, environment) for each in chosen]


def run_one(chosen: Check, environment: Environment) -> Finding:
    """Run one check; an exception is a failure."""
    try:
        result = chosen.function(environment)
    except Exception as error:  # noqa: BLE001 - the report shows any exception
        result = fail(
            f"the check itself failed: {type(error).__name__}: {error}",
            "report this to the maintainers of rt",
        )
    return Finding(chosen.id, result.status, result.fact, result.remedy)
