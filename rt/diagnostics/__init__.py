"""Diagnostics of a process: its health, its slow tasks, and changes of the system clock."""

from rt.diagnostics.clock_changes import watch_clock
from rt.diagnostics.health import Health, health, loop_delay, report_health
from rt.diagnostics.slow_tasks import SlowTasks, slow_task_monitor

__all__ = [
    "Health",
    "SlowTasks",
    "health",
    "loop_delay",
    "report_health",
    "slow_task_monitor",
    "watch_clock",
]
