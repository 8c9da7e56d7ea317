"""`just bench`: benchmarks of whole robots with emulated devices, as a table and as bench.json.

Every value is a median, a p99 or the worst of several runs; measure on an otherwise idle machine.
The executable is measured if dist/rt exists.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec
import trio

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench import (  # noqa: E402 - found by the line above
    buffers,
    calls,
    crowds,
    hostile_costs,
    hotplug,
    idle_costs,
    logs,
    modes,
    whole,
)
from bench.figures import Figure  # noqa: E402
from support.robot import Robot  # noqa: E402

Measure = Callable[[Robot, int], Awaitable[list[Figure]]]
ON_ROBOTS: dict[str, tuple[Measure, int]] = {
    "write": (whole.write_to_wire, 400),
    "busy-write": (crowds.busy_write, 400),
    "data": (whole.data_to_reader, 500),
    "many": (crowds.many, crowds.REPORTING),
    "idle": (crowds.idle, crowds.IDLE),
    "idle-after": (idle_costs.idle_cost, 5),
    "memory": (idle_costs.memory, 1),
    "logs": (logs.many_lines, 5),
    "calls": (calls.one_at_a_time, 1500),
    "call-rate": (calls.many_at_once, 10_000),
    "flood": (calls.stop_in_a_flood, 300),
    "gamepad": (calls.gamepad_to_executor, 1500),
    "begin": (modes.begin, 10),
    "stop": (modes.stop, 40),
    "start": (whole.start_and_stop, 7),
    "executor": (whole.kill_executor, 20),
    "device": (whole.kill_device_process, 7),
}
"""The benchmarks with a robot each, with the number of runs or devices."""
NAMES = ("buffer", "hotplug", "log-call", "hostile", *ON_ROBOTS, "executable")


async def measure_on_robot(name: str) -> list[Figure]:
    """Run one benchmark on a new robot."""
    function, count = ON_ROBOTS[name]
    folder = Path(tempfile.mkdtemp(prefix="rt-"))
    figures: list[Figure] = []
    async with trio.open_nursery() as nursery:
        robot = Robot(folder, nursery)
        try:
            figures = await function(robot, count)
        finally:
            robot.clean_up()
        nursery.cancel_scope.cancel()
    return figures


def measure(name: str) -> list[Figure]:
    """Run one benchmark; return nothing if its subject is missing."""
    if name == "buffer":
        return buffers.operations()
    if name == "hotplug":
        return hotplug.attempt()
    if name == "hostile":
        return hostile_costs.longest_steps()
    if name == "log-call":
        return logs.log_call()
    if name == "executable":
        path = ROOT / "dist" / "rt"
        return whole.executable(path, 15) if path.exists() else []
    return trio.run(measure_on_robot, name)


def show(figures: list[Figure]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", "bar", "runs", "")
    for figure in figures:
        status = "[green]holds[/green]" if figure.holds else "[red]misses[/red]"
        bounded = figure.bar is not None
        table.add_row(
            figure.name,
            f"{figure.value:.3g} {figure.unit}",
            f"{figure.bar:g}" if bounded else "",
            str(figure.runs),
            status if bounded else "",
        )
    Console(width=shutil.get_terminal_size((120, 24)).columns).print(table)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def main(names: tuple[str, ...], *, as_json: bool) -> None:
    """Run the named benchmarks, or all."""
    figures: list[Figure] = []
    for name in names or NAMES:
        click.echo(f"measuring: {name}", err=True)
        figures += measure(name)
    text = json.dumps([msgspec.to_builtins(figure) for figure in figures], indent=2) + "\n"
    (ROOT / "bench.json").write_text(text)
    if as_json:
        click.echo(text, nl=False)
    else:
        show(figures)


if __name__ == "__main__":
    main()
