"""How a process is: its health in numbers, which task kept the others waiting, and whether the clock was set."""

from rt.diagnostics.clock import watch_clock
from rt.diagnostics.health import Health, LoopDelay, health
from rt.diagnostics.report import report_health
from rt.diagnostics.slow_tasks import SlowTasks, slow_task_monitor

__all__ = [
    "Health",
    "LoopDelay",
    "SlowTasks",
    "health",
    "report_health",
    "slow_task_monitor",
    "watch_clock",
]
