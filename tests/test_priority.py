"""Tests of the priority, in processes of their own, because it cannot be restored."""

import os
import subprocess
import sys
from pathlib import Path

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


CAP_SYS_ADMIN, CAP_SYS_NICE = 21, 23
AUTOGROUP = Path("/proc/self/autogroup")


def has_capabilities(*capabilities: int) -> bool:
    """Whether this process has capabilities (capabilities(7))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (effective,) = (line for line in lines if line.startswith("CapEff"))
    return all(int(effective.split()[1], 16) >> each & 1 for each in capabilities)


@pytest.mark.skipif(
    not has_capabilities(CAP_SYS_ADMIN, CAP_SYS_NICE),
    reason="not permitted, or only once each 0.1 s on the whole machine",
)
@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
@pytest.mark.parametrize(("leads", "nice"), [(True, -10), (False, 0)])
def test_safe_process_raises_the_priority_of_a_session_that_it_leads(
    leads: bool, nice: int
) -> None:
    """Unless the process leads the session, the one that reads the nice value does."""
    show = f"print(open({str(AUTOGROUP)!r}).read().split()[-1])"
    ask = "from rt import priority; priority.set_high(safe=True)"
    program = (
        f"{ask}\n{show}"
        if leads
        else f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}])\n{show}"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, start_new_session=True
    )
    assert int(done.stdout) == nice


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
