"""Tests of the priority, in processes of their own, because it cannot be restored."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os
from rt import priority
{}
print(os.getpriority(os.PRIO_PROCESS, 0))
for line in open("/proc/self/sched"):
    if line.startswith("se.slice"):
        print(line.split()[-1])
"""


def measure(statements: str, nice: int = 0) -> list[int]:
    command = [sys.executable, "-c", PROGRAM.format(statements)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=lambda: os.nice(nice)
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_high_priority_has_a_lower_nice_value() -> None:
    nice, *_ = measure("assert priority.set_high()")
    assert nice < 0


def test_high_priority_has_a_shorter_slice() -> None:
    before = measure("")
    after = measure("priority.set_high()")
    if len(before) < 2:
        pytest.skip("this kernel shows no slices")
    assert after[1] <= before[1]


def test_high_priority_has_a_short_switch_interval() -> None:
    after = measure("import sys; priority.set_high(); print(round(sys.getswitchinterval() * 1e6))")
    assert after[0] <= 500


def test_set_normal_resets_the_priority() -> None:
    assert measure("priority.set_high(); assert priority.set_normal()") == measure("")


def test_set_normal_keeps_a_lower_priority() -> None:
    nice, *_ = measure("priority.set_normal()", nice=7)
    assert nice == 7 + os.getpriority(os.PRIO_PROCESS, 0)


def test_unsupported_machine_changes_nothing() -> None:
    nice, *_ = measure(
        "os.uname = lambda: os.uname_result(('', '', '', '', 'unknown'));"
        " assert not priority.set_high()"
    )
    assert nice == os.getpriority(os.PRIO_PROCESS, 0)
