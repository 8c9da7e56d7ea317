"""Programs for the linter, as text."""

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from rt import catalog
from rt.config import Config
from rt.lint.lint import lint
from rt.lint.record import Record
from rt.lint.request import LintRequest
from rt.protocol.uid import DeviceUID

CATALOG = catalog.load()


def uid_of(name: str, number: int = 1) -> str:
    device_id = CATALOG[name].device_id
    assert device_id is not None
    return str(int(DeviceUID(device_id, 7, number)))


NAMES = {
    **{
        name: uid_of("polar-bear", number)
        for number, name in enumerate(("motor", "left_motor", "right_motor"))
    },
    **{f"m{number}": uid_of("polar-bear", 10 + number) for number in range(1, 9)},
    "bumper": uid_of("limit-switch"),
    "arm": uid_of("servo-motor"),
    "flag": uid_of("team-flag"),
    "koala": uid_of("koala-bear"),
}
LIMITS = {".*_setup": 1.0, ".*_main": 0.05}


def request(folder: Path, name: str = "studentcode", *files: str) -> LintRequest:
    config = Config(exec_module=name, dev_name=NAMES, exec_timeout=LIMITS)
    return LintRequest(directory=str(folder), config=config, files=files)


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")


def linted(folder: Path, program: str, **modules: str) -> list[Record]:
    """Return the records of a program and its modules."""
    write(
        folder,
        {"studentcode.py": program, **{f"{name}.py": text for name, text in modules.items()}},
    )
    # The path of a linter process does not contain the tests.
    tests = Path(__file__).parents[1]
    own = [
        each
        for each in sys.path
        if "pytest-of-" not in each and not Path(each).is_relative_to(tests)
    ]
    with mock.patch.object(sys, "path", own):
        return lint(request(folder))
