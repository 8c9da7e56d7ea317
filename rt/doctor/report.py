"""The report of findings: a table for people, JSON for programs, and the exit status."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from rt.doctor.registry import Finding, Status

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def exit_status(findings: Sequence[Finding]) -> int:
    """Return 0 if the robot can run, with or without warnings, else 1."""
    return int(any(finding.status == "fail" for finding in findings))


def as_json(findings: Sequence[Finding]) -> str:
    """Return the findings as a JSON list of objects with id, status, fact and remedy."""
    return json.dumps([msgspec.structs.asdict(finding) for finding in findings], indent=2)


def summary(findings: Sequence[Finding]) -> str:
    """Return the number of findings of each status, worst first."""
    count = Counter(finding.status for finding in findings)
    words: dict[Status, str] = {"fail": "failed", "warn": "warned", "skip": "skipped", "ok": "ok"}
    return ", ".join(f"{count[status]} {word}" for status, word in words.items() if count[status])


def show(findings: Sequence[Finding], console: "Console") -> None:
    """Print the findings as a table, remedies under their facts, and a summary."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("check", "status", "seen"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        style = _STYLES[finding.status]
        seen = Text(finding.fact)
        if finding.remedy:
            seen.append(f"\n-> {finding.remedy}", style)
        table.add_row(finding.id, Text(finding.status, style), seen)
    console.print(table)
    console.print(summary(findings), highlight=False)
