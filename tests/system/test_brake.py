"""The board stops in time after each process fault, whatever action follows.

BRAKE_ROUNDS=N runs all cells N times and writes each outcome to the file BRAKE_RESULTS, with the
log of a late one to BRAKE_RESULTS.late. `just brake` updates docs/safety.md from them.
"""

import json
import os

import pytest
import trio
from support import brake_cells
from support.brake_cells import BOUNDS, Cell
from support.robot import BINARY

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("BRAKE_ROUNDS", "0"))
TRIES = 3
RESULTS = os.environ.get("BRAKE_RESULTS")
CELLS = brake_cells.ALL if ROUNDS else brake_cells.SAMPLE[:: 4 if BINARY else 1]
CELLS = [*CELLS, *brake_cells.TWO_FAULTS[:: 3 if BINARY else 1]]


def test_sample_covers_every_pair() -> None:
    def pairs(cells: list[Cell]) -> set[tuple[object, ...]]:
        return {(i, j, cell[i], cell[j]) for cell in cells for i in range(4) for j in range(i)}

    assert pairs(brake_cells.SAMPLE) == pairs(brake_cells.ALL)


@pytest.mark.every_case
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(cell).replace(" ", "_"))
async def test_board_stops_in_time_and_stays_stopped(cell: Cell) -> None:
    for number in range(1, max(ROUNDS, 1) + 1):
        outcome = await brake_cells.run(cell)
        if RESULTS:
            line = json.dumps(brake_cells.describe(cell, outcome, number)) + "\n"
            async with await trio.open_file(RESULTS, "a") as file:
                await file.write(line)
            if outcome.is_late(BOUNDS[cell.fault]):
                async with await trio.open_file(f"{RESULTS}.late", "a") as file:
                    await file.write(json.dumps([cell, outcome]) + "\n")
        else:
            # If the machine delayed this process, it also delayed the robot; a fault of rt would
            # happen again.
            tries = [outcome]
            while tries[-1].is_late(BOUNDS[cell.fault]) and len(tries) < TRIES:
                tries.append(await brake_cells.run(cell))
            assert not tries[-1].is_late(BOUNDS[cell.fault]), tries
