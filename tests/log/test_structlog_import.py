"""The log imports no library that rt does not use."""

import subprocess
import sys

import pytest

ROLES = ["rt.executor.process", "rt.smartdevice.process"]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("module", ROLES)
def test_child_imports_neither_rich_nor_asyncio(module: str) -> None:
    assert (
        run(f"import sys, {module}; print({{'rich', 'asyncio'}} & set(sys.modules))") == "set()\n"
    )


def test_rich_and_asyncio_can_be_imported_later() -> None:
    assert run(
        "import rt.log, asyncio.subprocess, rich.console; print(asyncio.run, rich.console.Console)"
    )


def test_coroutines_of_a_logger_work() -> None:
    code = """
from rt import log
log.configure()
logger = log.get_logger()
import asyncio
asyncio.run(logger.ainfo("hello"))
"""
    assert '"hello"' in run(code)
