"""Is this machine ready for the robot? A registry of checks, one file for each family of them, and the report."""

from rt.doctor.registry import (
    Check,
    Environment,
    Finding,
    Result,
    Status,
    check,
    checks,
    examine,
    fail,
    ok,
    skip,
    warn,
)

__all__ = [
    "Check",
    "Environment",
    "Finding",
    "Result",
    "Status",
    "check",
    "checks",
    "examine",
    "fail",
    "ok",
    "skip",
    "warn",
]
