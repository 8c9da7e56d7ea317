"""The supervisor: children as processes, each with an owner, a reason for every stop, and a way back.

Nothing is imported here: a child takes from this room only what it speaks to its parent with (`lifeline`, `notify`, `signals`, `ending`).
"""
