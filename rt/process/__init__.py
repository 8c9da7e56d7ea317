"""Processes that somebody runs and waits for, and calls at an interval: what the supervisor's children have and more freely.

The supervisor (`rt.supervisor`) keeps a robot's own processes alive. A process of this room is run once, by whoever waits for
its end: a command, or a Python function in an interpreter of its own. None of them outlives its owner.
"""

from rt.process.base import ChildProcess
from rt.process.call import CallableProcess
from rt.process.command import CommandProcess
from rt.process.periodic import Schedule, spin
from rt.process.run import run_process

__all__ = ["CallableProcess", "ChildProcess", "CommandProcess", "Schedule", "run_process", "spin"]
