"""How a process is: its health in numbers, and which task kept the others waiting."""

from rt.diagnostics.health import Health, LoopDelay, health
from rt.diagnostics.steps import SlowSteps

__all__ = ["Health", "LoopDelay", "SlowSteps", "health"]
