"""Prints the branch coverage of each package, from the report that `coverage json` writes."""

import json
import sys
from collections import defaultdict
from pathlib import Path

COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def row(name: str, statements: int, lines: int, branches: int, taken: int) -> str:
    """Return the line of a package."""
    share = (lines + taken) / (statements + branches or 1)
    return f"{name:<16} {statements:>10} {branches:>8} {share:>8.1%}"


def main(report: Path) -> None:
    """Print a line for each package, and the total."""
    packages: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTS))
    for name, file in json.loads(report.read_text())["files"].items():
        package = packages[Path(name).parts[1].removesuffix(".py")]
        for index, count in enumerate(COUNTS):
            package[index] += file["summary"][count]
    print(f"{'package':<16} {'statements':>10} {'branches':>8} {'covered':>8}")
    for name, counts in sorted(packages.items()):
        print(row(name, *counts))
    print(row("total", *map(sum, zip(*packages.values(), strict=True))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
