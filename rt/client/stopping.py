"""The target of a command that stops a robot, found even if the options are invalid."""

from typing import NamedTuple

import msgspec

from rt.client.options import Loader
from rt.config import Config
from rt.errors import ConfigError
from rt.instance import Instance, running

_FLAG = "--instance"


class StopTarget(NamedTuple):
    """The target of a command that stops a robot.

    Attributes:
        config: The options, which name the robot.
        problem: What is wrong with the user's options, reported after the call, or empty.
    """

    config: Config
    problem: str = ""


def find_target(load: Loader, *, is_here: bool) -> StopTarget:
    """Return the robot to stop.

    If the options are invalid, only the flags and RT_INSTANCE count. If no robot of that name runs
    and exactly one other does, it is the target, unless a flag gave the name.

    Args:
        load: Loads the options.
        is_here: Whether the robot runs on this computer.

    Raises:
        ConfigError: A flag is invalid.
    """
    problem = ""
    try:
        loaded = load()
        loaded.config.resolved(Instance.locate(loaded.config.instance).directory)
    except ConfigError as error:
        problem = error.message
        loaded = load(only_flags=True)
    config = loaded.config
    if (
        is_here
        and loaded.origins["instance"] != _FLAG
        and Instance.locate(config.instance).holder() is None
    ):
        robots = running()
        if len(robots) == 1:
            problem = problem or f"no robot runs as {config.instance!r}"
            config = msgspec.structs.replace(config, instance=robots[0])
    return StopTarget(config, problem)
