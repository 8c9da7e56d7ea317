"""The linter returns records for any code: random text, and programs with random changes."""

import ast
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.lint import LIMITS, NAMES
from support.lint_cases import HITS, MISSES

import rt
from rt import catalog
from rt.config import Config
from rt.lint.lint import _records
from rt.lint.program import Program
from rt.lint.record import Record, sort_records

ROOT = Path(rt.__file__).parents[1]
KNOWN = catalog.load()
PROGRAMS = [program for cases in HITS.values() for program, _ in cases] + [
    each for some in MISSES.values() for each in some
]
PIECES = [
    *(
        "Robot",
        "Gamepad",
        "Actions",
        ".get",
        ".write",
        ".run",
        "(",
        ")",
        "'motor'",
        '"duty_cycle"',
        ",",
        "*",
        "**",
        "=",
        ":=",
    ),
    *(
        "async ",
        "await ",
        "def f():\n    ",
        "lambda: ",
        "while True:\n    ",
        "global x\n",
        "nonlocal x\n",
        "yield ",
        "class C:\n    ",
    ),
    *(
        "import time\n",
        "from . import x\n",
        "from x import *\n",
        "time.sleep",
        "1e999",
        "0x" + "f" * 50,
        "'\\ud800'",
        "\n",
        "    ",
    ),
    *(
        "del x\n",
        "try:\n    x\nexcept* E as x:\n    x\n",
        "match x:\n    case {**x}:\n        x\n",
        "f'{x}'",
        "@x\n",
        "type X = int\n",
    ),
]
many = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check(folder: Path, data: bytes) -> list[Record]:
    path = folder / "studentcode.py"
    path.write_bytes(data)
    config = Config(dev_name=NAMES, exec_timeout=LIMITS)
    found = sort_records(_records(Program(path, folder), config, KNOWN))
    assert not [each for each in found if each.symbol == "check-failed"], data
    assert all(each.line >= 1 and each.column >= 0 and each.message for each in found)
    msgspec.msgpack.encode(found)
    return found


def compiles(data: bytes) -> bool:
    try:
        compile(data, "x", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


@many
@given(text=st.text())
def test_any_text_gets_records(tmp_path: Path, text: str) -> None:
    check(tmp_path, text.encode("utf-8", "surrogatepass"))


@many
@given(data=st.binary())
def test_any_bytes_get_records(tmp_path: Path, data: bytes) -> None:
    check(tmp_path, data)


@many
@given(
    program=st.sampled_from(PROGRAMS),
    cut=st.integers(0, 400),
    length=st.integers(0, 30),
    piece=st.sampled_from(PIECES),
)
def test_any_changed_program_gets_records(
    tmp_path: Path, program: str, cut: int, length: int, piece: str
) -> None:
    cut %= len(program) + 1
    check(tmp_path, (program[:cut] + piece + program[cut + length :]).encode("utf-8"))


@many
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_sequence_of_tokens_gets_records(tmp_path: Path, pieces: list[str]) -> None:
    check(tmp_path, "".join(pieces).encode("utf-8"))


@many
@given(first=st.sampled_from(PROGRAMS), second=st.sampled_from(PROGRAMS))
def test_syntax_errors_are_those_of_python(tmp_path: Path, first: str, second: str) -> None:
    data = f"{first}\n{second}\n".encode()
    assert ("syntax-error" in {each.symbol for each in check(tmp_path, data)}) == (
        not compiles(data)
    )


def test_code_of_the_standard_library_gets_records(tmp_path: Path) -> None:
    for path in (Path(ast.__file__), *sorted(Path(ast.__file__).parent.glob("[a-d]*.py"))[:20]):
        check(tmp_path, path.read_bytes())
