"""The table in docs/safety.md, from the results that tests/system/test_brake.py writes.

brake_table.py RESULTS DOCUMENT    replace the text between the markers in a document
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from support.brake_cells import (
    ACTIONS,
    BOUNDS,
    FAULTS,
    MODES,
    SECOND_FAULT,
    SECOND_FAULT_AFTER,
    TARGETS,
    TWO_FAULTS,
)

BEGIN, END = "<!-- table: just brake -->", "<!-- end of table -->"
NAMES = {"kill": "kill -9", "stop": "SIGSTOP"}


def table(lines: list[str]) -> str:
    """Return the table of the worst time (ms) of each cell."""
    times: dict[tuple[str, ...], list[float]] = defaultdict(list)
    starved = 0.0
    for line in lines:
        entry = json.loads(line)
        times[entry["fault"], entry["target"], entry["mode"], entry["action"]].append(entry["ms"])
        starved = max(starved, entry["starved"])
    text = (
        "| fault | process | mode | "
        + " | ".join(ACTIONS)
        + " |\n"
        + "| --- " * (3 + len(ACTIONS))
        + "|\n"
    )
    for fault in FAULTS:
        for target in TARGETS:
            for mode in MODES:
                cells = [times.get((fault, target, mode, action)) for action in ACTIONS]
                shown = [f"{max(cell):.0f}" if cell else "-" for cell in cells]
                text += f"| {NAMES[fault]} | {target} | {mode} | " + " | ".join(shown) + " |\n"
    text += (
        "\nTwo faults in a row: SIGSTOP of a process, and "
        f"{SECOND_FAULT_AFTER * 1e3:.0f} ms later {SECOND_FAULT}.\n"
    )
    text += "\n| process | mode | time |\n| --- | --- | --- |\n"
    for cell in TWO_FAULTS:
        if found := times.get((cell.fault, cell.target, cell.mode, SECOND_FAULT)):
            text += f"| {cell.target} | {cell.mode} | {max(found):.0f} |\n"
    over = sum(value > BOUNDS[key[0]] for key, each in times.items() for value in each)
    rounds = max(map(len, times.values()), default=0)
    count = sum(map(len, times.values()))
    text += (
        f"\n{count} runs, {rounds} of each cell; {over} above the bound. While they ran, the machine "
        f"kept a process that was due waiting for up to {starved:.0f} ms.\n"
    )
    return text


def main(results: Path, document: Path) -> None:
    head, rest = document.read_text().split(BEGIN)
    _, tail = rest.split(END)
    document.write_text(f"{head}{BEGIN}\n{table(results.read_text().splitlines())}{END}{tail}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
