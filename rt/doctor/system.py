"""Checks of the basics: interpreter, platform, options, instance, brake, standard library."""

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
_OLDEST_KERNEL = (5, 3)  # for pidfd_open
STDLIB_LIST = Path(__file__).with_name("stdlib.txt")
"""In the executable: importable modules of the interpreter it was built from, one per line."""


@check("python")
def python(environment: Environment) -> Result:  # noqa: ARG001 - signature of a check
    """The Python that runs rt."""
    kind = "in the executable" if getattr(sys, "frozen", False) else f"at {sys.executable}"
    fact = f"rt {rt.__version__} on Python {platform.python_version()} {kind}"
    if sys.version_info < _OLDEST_PYTHON:
        return fail(fact, f"install Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer")
    return ok(fact)


@check("platform")
def system(environment: Environment) -> Result:  # noqa: ARG001 - signature of a check
    """The operating system and its kernel."""
    fact = (
        f"{platform.system()} {platform.release()} on {platform.machine()},"
        f" {os.cpu_count()} processors"
    )
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
        return fail(environment.problem, "correct it; the other checks used the defaults")
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
    """The instance directory, and whether the robot runs."""
    from rt.instance import Instance

    here = Instance.locate(environment.config.instance)
    environment.config.resolved(here.directory)
    holder = here.holder()
    state = f"runs as process {holder.pid}" if holder else "is not running"
    return ok(f"robot {here.name!r} {state}; directory {here.directory}")


@check("brake")
def brake(environment: Environment) -> Result:
    """The brake of a running robot is ready; without it nothing moves."""
    from rt.brake.watch import is_watching
    from rt.errors import RemoteCallError
    from rt.instance import Instance

    here = Instance.locate(environment.config.instance)
    holder = here.holder()
    if holder is None:
        return skip("the robot is not running")
    if is_stopped(holder.pid):
        return fail(
            f"the robot's process {holder.pid} is stopped, and its devices are disabled",
            f"resume it (kill -CONT {holder.pid}), or kill it (kill -9 {holder.pid}) and restart"
            " the robot",
        )
    try:
        children = ask(here, "status")
    except RemoteCallError as error:
        return fail(
            f"the robot, process {holder.pid}, does not answer: {error}",
            f"see `rt logs`; if it persists, kill it (kill -9 {holder.pid}) and restart the robot",
        )
    found = next((each for each in children if each["name"] == "brake"), None)
    if found is None:
        return warn(
            "the running robot has no brake, because it is another version",
            "restart it with this version",
        )
    if found["state"] == "ready" and is_watching(found["status"]):
        return ok(f"ready, process {found['pid']}, {found['status']}")
    return fail(
        found["status"] or f"{found['state']}: {found['reason']}",
        "see `rt logs`, or restart the robot if this persists",
    )


@check("stdlib", on_request=True)
def stdlib(environment: Environment) -> Result:  # noqa: ARG001 - signature of a check
    """The executable can import the whole standard library."""
    if not STDLIB_LIST.exists():
        return skip("rt runs from source and uses the interpreter's standard library")
    names = STDLIB_LIST.read_text().split()
    missing = [f"{name} ({reason})" for name in names if (reason := _import_error(name))]
    if missing:
        return fail(
            f"{len(missing)} of {len(names)} modules cannot be imported: {', '.join(missing)}",
            "build the executable again",
        )
    return ok(f"all {len(names)} modules can be imported")


def _import_error(module: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the report shows any error
            return f"{type(error).__name__}: {error}"
    return ""
