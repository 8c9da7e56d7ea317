"""Processes: one engine that starts, attends and kills them, and the parent's and the child's ends of what connects them.

The supervisor (`rt.supervisor`) keeps a robot's own processes alive. A `CommandProcess` or
`CallableProcess` runs once, for as long as its owner waits for it. No process outlives its owner.

Nothing is imported here, because a child imports only its own end (`lifeline`, `notify`, `signals`,
`exit_status`).
"""
