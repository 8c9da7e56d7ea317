"""The table of devices and their values.

A line break never separates a value from its name. Numbers have a fixed width, so a live table does
not jump. A narrow terminal has no columns for the counters.
"""

import math
from collections.abc import Collection, Mapping
from itertools import chain, count
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from rt.buffer import BufferStore, DeviceBuffer
from rt.buffer.device import Counters
from rt.errors import BufferBusyError, DeviceBufferError

PROBLEM_COUNTERS = ("bad", "dropped")
"""The counters that indicate a problem unless they are 0."""

COUNTERS = {
    "received": "frames_received",
    "bad": "bad_frames",
    "written": "writes_sent",
    "dropped": "writes_dropped",
}
"""The columns of counters, and the keys of the rows that they show."""

EMPTY = "no devices yet; plug one in, or run `rt emulate-dev polar-bear@1`"
NARROW = 60
"""Columns of a terminal below which the values are below their device."""
_COUNTER_WIDTH = 8
_GAP = 2
_SHOWN_DIGITS = 3
_NUMBER_WIDTH = 7
_HINTS_MAX = 8


def device_rows(
    store: BufferStore, names: Mapping[int, str], chosen: Collection[int] = ()
) -> list[dict[str, Any]]:
    """Return a row of plain values for each Smart Device that was ever connected.

    Args:
        store: The robot's buffers.
        names: The names in dev_name, by UID.
        chosen: The UIDs to include; all if empty.
    """
    rows = []
    for uid, buffer in store.devices().items():
        if chosen and uid not in chosen:
            continue
        rows.append(
            {
                "uid": str(uid),
                "name": names.get(uid, ""),
                "type": buffer.name,
                "connected": buffer.valid,
                "values": _values(buffer),
                "age": round(buffer.age, 3) if math.isfinite(buffer.age) else None,
                "subscription": buffer.subscription,
                "interval": buffer.interval,
                "received": buffer.received,
                "sent": buffer.sent,
                **{name: getattr(buffer.counters, name) for name, *_ in Counters._fields_},
            }
        )
    return rows


def _values(buffer: DeviceBuffer) -> dict[str, Any]:
    try:
        return buffer.snapshot()
    except (BufferBusyError, DeviceBufferError):
        return {}


class _Pairs:
    """Names with their values, packed into lines without splitting a pair."""

    def __init__(self, pairs: list[Text]) -> None:
        self._pairs = pairs

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widths = [pair.cell_len for pair in self._pairs] or [0]
        most = sum(widths) + _GAP * (len(widths) - 1)
        return Measurement(min(max(widths), options.max_width), min(most, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for pair in self._pairs:
            if line and line.cell_len + _GAP + pair.cell_len > options.max_width:
                yield line
                line = Text()
            line = Text.assemble(line, " " * _GAP if line else "", pair)
        yield line


def device_table(
    rows: list[dict[str, Any]],
    title: str = "",
    *,
    names: Mapping[int, str] | None = None,
    width: int = 80,
    note: str = "",
) -> RenderableType:
    """Draw the rows of `device_rows`.

    Args:
        rows: The rows.
        title: Text above the table.
        names: The expected devices: names by UID. Those without a row are shown as never seen.
        width: Columns of the terminal.
        note: Text below the table.
    """
    counters = len(COUNTERS) * (_COUNTER_WIDTH + _GAP)
    widest = max([0, *(len(line) for row in rows for line in _head(row).plain.splitlines())])
    longest = max([20, *(pair.cell_len for row in rows for pair in _pairs(row))])
    shows_counters = width >= NARROW and width - widest - counters - 4 * _GAP >= longest
    cells = [
        (
            _head(row),
            _state(row, with_problems=not shows_counters),
            [str(row[key]) for key in COUNTERS.values()],
        )
        for row in rows
    ]
    seen = {int(row["uid"]) for row in rows}
    for uid, name in (names or {}).items():
        if uid not in seen:
            head = Text(name, "bold") if name == str(uid) else _title(name, str(uid))
            cells.append((head, Text("never seen", "red"), [""] * len(COUNTERS)))
    if not cells:
        return Group(
            *([Text(title)] if title else []), Text(EMPTY, "dim"), *([Text(note)] if note else [])
        )
    table = Table(
        title=Text(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    if width < NARROW:
        table.add_column("device")
        for head, state, _ in cells:
            table.add_row(Group(head, state))
    else:
        table.add_column("device", no_wrap=True)
        table.add_column("values", ratio=1)
        for heading in COUNTERS if shows_counters else ():
            table.add_column(heading, justify="right", no_wrap=True, min_width=_COUNTER_WIDTH)
        for head, state, counts in cells:
            table.add_row(head, state, *(counts if shows_counters else []))
    unnamed = [row for row in rows if not row["name"]]
    below = [Text(_hint(unnamed, {row["name"] for row in rows}), "dim")] if unnamed else []
    below += [Text(note)] if note else []
    return Group(table, *below) if below else table


def _hint(unnamed: list[dict[str, Any]], taken: Collection[str]) -> str:
    """Return lines for rt.toml that give devices names, ready to be copied."""
    have = "1 device has" if len(unnamed) == 1 else f"{len(unnamed)} devices have"
    them = "it" if len(unnamed) == 1 else "them"
    lines = [f"{have} no name; name {them} in rt.toml under [dev_name], for example:"]
    used = set(taken)
    for row in unnamed[:_HINTS_MAX]:
        base = f"my_{row['type']}".replace("-", "_")
        numbered = (f"{base}_{number}" for number in count(2))
        name = next(each for each in chain([base], numbered) if each not in used)
        used.add(name)
        lines.append(f'{name} = "{row["uid"]}"')
    return "\n".join(lines)


def _head(row: dict[str, Any]) -> Text:
    return _title(row["name"], row["type"]) if row["name"] else _title(row["type"], row["uid"])


def _title(first: str, second: str) -> Text:
    return Text.assemble((first, "bold"), "\n", (second, "dim"))


def _state(row: dict[str, Any], *, with_problems: bool) -> RenderableType:
    """Return the values and, if the counters have no columns, the problem counters."""
    pairs = _pairs(row) if row["connected"] else [Text("not connected", "red")]
    if with_problems:
        pairs += [
            Text(f"{name} {row[COUNTERS[name]]}", "red")
            for name in PROBLEM_COUNTERS
            if row[COUNTERS[name]]
        ]
    return _Pairs(pairs)


def _pairs(row: dict[str, Any]) -> list[Text]:
    return [
        Text.assemble(name, " ", (format_value(value), "cyan"))
        for name, value in row["values"].items()
    ]


def format_value(value: Any) -> str:
    """Return a value as text of a fixed width."""
    if isinstance(value, bool):
        return "on " if value else "off"
    return (
        f"{value:{_NUMBER_WIDTH}.{_SHOWN_DIGITS}f}"
        if isinstance(value, float)
        else f"{value!s:>{_NUMBER_WIDTH}}"
    )
