"""The supervisor: children as processes, each with an owner, a reason for every stop, and a way back."""

from rt.supervisor.life import Policy, State
from rt.supervisor.lifeline import Lifeline
from rt.supervisor.notify import send, watchdog_period
from rt.supervisor.output import log_line
from rt.supervisor.spec import LIFELINE, ChildSpec, ChildStatus, ExitReport
from rt.supervisor.tree import Supervisor

__all__ = [
    "LIFELINE",
    "ChildSpec",
    "ChildStatus",
    "ExitReport",
    "Lifeline",
    "Policy",
    "State",
    "Supervisor",
    "log_line",
    "send",
    "watchdog_period",
]
