"""Checks of the ground: interpreter, platform, options, instance, and the executable's standard library."""

import contextlib
import importlib
import io
import os
import platform
import sys
from pathlib import Path

import rt
from rt.doctor.registry import Environment, Result, check, fail, ok, skip, warn
from rt.doctor.running import ask, is_stopped

_OLDEST_PYTHON = (3, 11)
_OLDEST_KERNEL = (5, 3)  # pidfd_open, by which a death is seen at once
STDLIB_LIST = Path(__file__).with_name("stdlib.txt")
"""In the executable: the modules that the interpreter it was built from could import, one a line."""


@check("python")
def python(environment: Environment) -> Result:  # noqa: ARG001 - every check is given the scene
    """The Python that runs rt."""
    kind = "in the executable" if getattr(sys, "frozen", False) else f"at {sys.executable}"
    fact = f"rt {rt.__version__} on Python {platform.python_version()} {kind}"
    if sys.version_info < _OLDEST_PYTHON:
        return fail(fact, f"install Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer")
    return ok(fact)


@check("platform")
def system(environment: Environment) -> Result:  # noqa: ARG001 - every check is given the scene
    """The operating system and its kernel."""
    fact = f"{platform.system()} {platform.release()} on {platform.machine()}, {os.cpu_count()} processors"
    if sys.platform != "linux":
        return fail(fact, "run rt on Linux")
    kernel = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if kernel < _OLDEST_KERNEL:
        return fail(fact, f"use a kernel of {'.'.join(map(str, _OLDEST_KERNEL))} or newer")
    return ok(fact)


@check("config")
def options(environment: Environment) -> Result:
    """The options of the robot."""
    if environment.problem:
        return fail(
            environment.problem, "correct it there; the other checks went on with the defaults"
        )
    given = sorted(
        {
            place
            for origin in environment.origins.values()
            for place in origin.split(", ")
            if place != "default"
        }
    )
    return ok(f"given in {', '.join(given)}" if given else "all defaults")


@check("instance")
def instance(environment: Environment) -> Result:
    """The directory of this robot's sockets, and who runs it."""
    from rt.instance import Instance

    here = Instance.locate(environment.config.instance)
    environment.config.resolved(here.directory)
    holder = here.holder()
    state = f"runs as process {holder.pid}" if holder else "does not run"
    return ok(f"robot {here.name!r} {state}, its directory is {here.directory}")


@check("brake")
def brake(environment: Environment) -> Result:
    """A running robot has a brake that is ready; without one nothing moves."""
    from rt.brake.watch import is_watching
    from rt.errors import RemoteCallError
    from rt.instance import Instance

    here = Instance.locate(environment.config.instance)
    holder = here.holder()
    if holder is None:
        return skip("the robot does not run")
    if is_stopped(holder.pid):
        return fail(
            f"the robot's process {holder.pid} is stopped, and its devices are disabled",
            f"let it continue (kill -CONT {holder.pid}), or end it (kill -9 {holder.pid}) and start"
            " the robot again",
        )
    try:
        children = ask(here, "status")
    except RemoteCallError as error:
        return fail(
            f"the robot, process {holder.pid}, does not answer: {error}",
            f"see `rt logs`; if it stays so, end it (kill -9 {holder.pid}) and start the robot"
            " again",
        )
    found = next((each for each in children if each["name"] == "brake"), None)
    if found is None:
        return warn(
            "the running robot has no brake: it is of another version",
            "start it again with this version",
        )
    if found["state"] == "ready" and is_watching(found["status"]):
        return ok(f"ready, process {found['pid']}, {found['status']}")
    return fail(
        found["status"] or f"{found['state']}: {found['reason']}",
        "see `rt logs`, or start the robot again if it stays so",
    )


@check("stdlib", on_request=True)
def stdlib(environment: Environment) -> Result:  # noqa: ARG001 - every check is given the scene
    """The whole standard library can be imported in the executable."""
    if not STDLIB_LIST.exists():
        return skip("runs from source: the standard library is the interpreter's own")
    names = STDLIB_LIST.read_text().split()
    missing = [f"{name} ({reason})" for name in names if (reason := _refusal(name))]
    if missing:
        return fail(
            f"{len(missing)} of {len(names)} modules: {', '.join(missing)}",
            "build the executable again",
        )
    return ok(f"all {len(names)} modules can be imported")


def _refusal(module: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any reason is the answer
            return f"{type(error).__name__}: {error}"
    return ""
