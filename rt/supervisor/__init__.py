"""The supervisor: child processes with an owner, a reason for every stop and a restart policy."""
