"""The priority of processes, in processes of their own: it would stay with the one that runs the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import os
from rt import priority
{}
print(os.getpriority(os.PRIO_PROCESS, 0))
for line in open("/proc/self/sched"):
    if line.startswith("se.slice"):
        print(line.split()[-1])
"""


def look(statements: str, nice: int = 0) -> list[int]:
    command = [sys.executable, "-c", LOOK.format(statements)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=lambda: os.nice(nice))
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a better nice value")
def test_a_process_that_runs_first_has_a_better_nice_value() -> None:
    nice, *_ = look("assert priority.run_first()")
    assert nice < 0


def test_a_process_that_runs_first_has_a_shorter_slice() -> None:
    before = look("")
    after = look("priority.run_first()")
    if len(before) < 2:
        pytest.skip("this kernel shows no slices")
    assert after[1] <= before[1]


CAP_SYS_ADMIN, CAP_SYS_NICE = 21, 23
AUTOGROUP = Path("/proc/self/autogroup")


def may(*capabilities: int) -> bool:
    """Whether this process has capabilities (capabilities(7))."""
    (effective,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return all(int(effective.split()[1], 16) >> each & 1 for each in capabilities)


@pytest.mark.skipif(
    not may(CAP_SYS_ADMIN, CAP_SYS_NICE), reason="not permitted, or only once each 0.1 s on the whole machine"
)
@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
@pytest.mark.parametrize(("leads", "nice"), [(True, -10), (False, 0)])
def test_session_of_a_safe_process_runs_first_if_the_process_leads_it(leads: bool, nice: int) -> None:
    """The nice value of the session, after a process of it has asked; the process that looks leads the session otherwise."""
    show = f"print(open({str(AUTOGROUP)!r}).read().split()[-1])"
    ask = "from rt import priority; priority.run_first(safe=True)"
    program = (
        f"{ask}\n{show}"
        if leads
        else f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}])\n{show}"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    assert int(done.stdout) == nice


def test_thread_of_a_process_that_runs_first_gives_way_soon() -> None:
    after = look("import sys; priority.run_first(); print(round(sys.getswitchinterval() * 1e6))")
    assert after[0] <= 500


def test_what_such_a_process_starts_runs_ordinarily_when_it_says_so() -> None:
    assert look("priority.run_first(); assert priority.run_ordinarily()") == look("")


def test_a_lower_priority_that_was_given_stays() -> None:
    nice, *_ = look("priority.run_ordinarily()", nice=7)
    assert nice == 7 + os.getpriority(os.PRIO_PROCESS, 0)


def test_without_the_call_of_this_kernel_nothing_changes() -> None:
    nice, *_ = look("os.uname = lambda: os.uname_result(('', '', '', '', 'toaster')); assert not priority.run_first()")
    assert nice == os.getpriority(os.PRIO_PROCESS, 0)
