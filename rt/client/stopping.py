"""Which robot a command to stop is for: it is sent also if the options are wrong, and what is wrong is said afterwards."""

from typing import NamedTuple

import msgspec

from rt.client.options import Loader
from rt.config import Config
from rt.errors import ConfigError
from rt.instance import Instance, running

_FLAG = "--instance"


class StopTarget(NamedTuple):
    """What a command to stop goes by.

    Attributes:
        config: The options.
        trouble: What is wrong with them, in a sentence without its end; empty if nothing is.
    """

    config: Config
    problem: str = ""


def find_target(load: Loader, *, is_here: bool) -> StopTarget:
    """The options by which a robot is found.

    Without usable options it is the robot of the flags or of RT_INSTANCE. If no robot of that name
    runs here, it is the only one that does, unless the name came from a flag.

    Args:
        load: Loads the options.
        is_here: Whether the robot runs on this computer.

    Raises:
        ConfigError: A flag is wrong.
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
