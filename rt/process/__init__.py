"""Processes: how they are started, watched and killed, and the channels between parent and child.

The supervisor (`rt.supervisor`) keeps a robot's own processes running. A `CommandProcess` or a
`CallableProcess` runs once. No process outlives its owner.

This module imports nothing, because a child imports only its own end (`lifeline`, `notify`,
`signals`, `exit_status`).
"""
