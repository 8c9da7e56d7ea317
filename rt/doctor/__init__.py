"""Checks of the machine for `rt doctor`: a registry, one module per family, and the report."""

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
