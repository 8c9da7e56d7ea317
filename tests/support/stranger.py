"""Programs that run as another user of this computer, `nobody`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

UID = 65534
"""Uid of the user `nobody`."""
_PRELUDE = f"""\
import json, os, resource, socket, struct, sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import trio, zmq
from support import strangers
"".encode("idna")  # imports the codec while its files are still readable
os.setgroups([])
os.setgid({UID})
os.setuid({UID})
"""


def require_another_user() -> None:
    """Skip the test unless this process may start programs as another user."""
    if os.geteuid() != 0:
        pytest.skip("starting programs as another user requires root")


def start_stranger(program: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a Python program as `nobody`, with pipes for its standard streams."""
    return subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_stranger(program: str, *arguments: str, within: float = 60) -> str:
    """Run a Python program as `nobody` to its end; return what it prints."""
    with start_stranger(program, *arguments) as process:
        try:
            out, errors = process.communicate(timeout=within)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    return out.strip()
