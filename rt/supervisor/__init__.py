"""The supervisor: children as processes, each with an owner, a reason for every stop, and a restart policy."""
