"""The linter on whole programs: their modules, invalid files, and the records."""

import re
import textwrap
from pathlib import Path

import pytest
from support.lint import NAMES, linted, request, uid_of, write

import rt
from rt.cli.init import STUDENT_CODE
from rt.config import Config
from rt.errors import CatalogError, ConfigError, ExecutionError
from rt.lint.lint import lint
from rt.lint.record import Record, sort_records
from rt.lint.request import LintRequest
from rt.lint.source import MAX_BYTES

ROOT = Path(rt.__file__).parents[1]
HOSTILE = {"blocking_action": ["sleep-in-action"], "swallows_time_limit": ["endless-loop"]}
"""The programs of tests that have findings on purpose."""
PROGRAMS = [
    *(ROOT / "tests" / "programs").glob("*.py"),
    *(ROOT / "rt" / "demo" / "programs").glob("*.py"),
]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def symbols(records: list[Record]) -> list[str]:
    return [each.symbol for each in records]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_included_programs_have_no_unexpected_findings(path: Path) -> None:
    assert symbols(lint(request(path.parent, path.stem))) == HOSTILE.get(path.stem, [])


@pytest.mark.parametrize(
    "text",
    [
        STUDENT_CODE,
        STUDENT_CODE.replace("# Robot", "Robot")
        .replace("    # if", "    if")
        .replace("    #  ", "    "),
        *SNIPPETS,
    ],
)
def test_examples_have_no_findings(tmp_path: Path, text: str) -> None:
    assert linted(tmp_path, text) == []


class TestModules:
    def test_modules_of_team_code_are_checked(self, tmp_path: Path) -> None:
        found = linted(
            tmp_path,
            "import arm\nfrom gear import box\n\n\n"
            "def teleop_main():\n    arm.lift()\n    box.turn()\n",
            arm="import os\n\n\ndef lift():\n    pass\n",
            **{
                "gear/__init__": "",
                "gear/box": "from . import axle\n\n\ndef turn():\n    axle.x(\n",
            },
        )
        assert [(each.path, each.module, each.symbol, each.line) for each in found] == [
            ("arm.py", "arm", "UnusedImport", 1),
            ("gear/box.py", "gear.box", "syntax-error", 5),
        ]

    def test_relative_imports_are_followed(self, tmp_path: Path) -> None:
        found = linted(
            tmp_path,
            "import gear.box\n\n\ndef teleop_main():\n    gear.box.turn()\n",
            **{
                "gear/__init__": "",
                "gear/box": "from .axle import spin\nfrom . import wheel\n\n\n"
                "def turn():\n    spin(wheel)\n",
                "gear/axle": "import os\n\n\ndef spin(each):\n    print(each)\n",
                "gear/wheel": "import sys\n",
            },
        )
        assert {each.path for each in found} == {"gear/axle.py", "gear/wheel.py"}

    def test_libraries_and_unused_modules_are_not_checked(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "site-packages/__init__.py": "import os",
                "unused.py": "import os",
                "sys.py": "import os",
            },
        )
        program = "import sys\nimport json\n\nprint(sys, json)\n\n\ndef teleop_main():\n    pass\n"
        assert linted(tmp_path, program) == []

    def test_package_may_import_for_others(self, tmp_path: Path) -> None:
        files = {
            "gear/__init__": "from gear.box import turn\n",
            "gear/box": "def turn():\n    pass\n",
        }
        assert (
            linted(tmp_path, "import gear\n\n\ndef teleop_main():\n    gear.turn()\n", **files)
            == []
        )

    def test_circular_imports_are_read_once(self, tmp_path: Path) -> None:
        program = "import arm\n\n\ndef teleop_main():\n    print(arm)\n"
        assert (
            linted(
                tmp_path, program, arm="import studentcode\nimport arm\n\nprint(studentcode, arm)\n"
            )
            == []
        )

    def test_constants_are_followed_across_modules(self, tmp_path: Path) -> None:
        program = """
            import names
            from names import LEFT, SPEED as FAST

            def teleop_main():
                Robot.write(LEFT, "duty_cycle", FAST)
                Robot.write(names.RIGHT, "duty_cycle", 0.5)
        """
        found = linted(
            tmp_path,
            textwrap.dedent(program),
            names="LEFT = 'left_moter'\nRIGHT = 'right_motor'\nSPEED = 0.5\n",
        )
        assert [(each.symbol, each.line) for each in found] == [("unknown-device", 6)]

    def test_star_imports_are_followed(self, tmp_path: Path) -> None:
        program = (
            "from names import *\nfrom time import *\n\n\n"
            "def teleop_main():\n    Robot.get(LEFT, 'enc_pos')\n    sleep(1)\n"
        )
        found = linted(tmp_path, program, names="LEFT = 'no'\n")
        assert [(each.symbol, each.line) for each in found][2:] == [
            ("unknown-device", 6),
            ("sleep-too-long", 7),
        ]

    def test_star_import_may_replace_names_of_rt(self, tmp_path: Path) -> None:
        program = (
            "from names import *\n\n\ndef drive():\n    Robot.spin()\n\n\nteleop_setup = drive\n"
        )
        found = linted(
            tmp_path,
            program,
            names="class Robot:\n    def spin(): ...\n\n\ndef teleop_main(): ...\n",
        )
        assert symbols(found) == ["ImportStarUsed"]
        found = linted(tmp_path, program, names="def sleep(): ...\n")
        assert symbols(found) == ["ImportStarUsed", "unknown-method", "missing-main"]

    @pytest.mark.parametrize(
        "line",
        [
            "from drive import teleop_main",
            "from drive import run as teleop_main",
            "from drive import *",
        ],
    )
    def test_main_may_be_imported(self, tmp_path: Path, line: str) -> None:
        drive = (
            "import time\n\n\ndef run():\n    time.sleep(1)\n\n\n"
            "def teleop_main():\n    time.sleep(1)\n"
        )
        found = [
            each
            for each in linted(tmp_path, f"{line}\n", drive=drive)
            if each.symbol != "ImportStarUsed"
        ]
        assert [(each.path, each.symbol, each.line) for each in found] == [
            ("drive.py", "sleep-too-long", 5 if " as " in line else 9)
        ]

    def test_name_assigned_by_another_module_is_uncertain(self, tmp_path: Path) -> None:
        program = (
            "import names\n\nnames.LEFT = 'motor'\n\n\n"
            "def teleop_main():\n    Robot.get(names.LEFT, 'duty_cycle')\n"
        )
        assert linted(tmp_path, program, names="LEFT = 'no'\n") == []

    def test_methods_are_followed_across_modules(self, tmp_path: Path) -> None:
        program = "import arms\n\narm = arms.Arm()\n\n\ndef teleop_main():\n    arm.wave()\n"
        (found,) = linted(
            tmp_path, program, arms="class Arm:\n    async def wave(self):\n        pass\n"
        )
        assert found.message == "arm.wave() does not run the action: write Actions.run(arm.wave)"

    def test_sleep_is_found_across_modules(self, tmp_path: Path) -> None:
        program = "from waits import rest\n\n\ndef teleop_main():\n    rest()\n"
        found = linted(tmp_path, program, waits="import time\n\n\ndef rest():\n    time.sleep(1)\n")
        assert [(each.path, each.symbol, each.line) for each in found] == [
            ("waits.py", "sleep-too-long", 5)
        ]
        assert "teleop_main (which calls rest)" in found[0].message

    def test_only_the_main_module_has_names_of_rt(self, tmp_path: Path) -> None:
        program = "import arm\n\n\ndef teleop_main():\n    arm.lift()\n"
        found = linted(
            tmp_path, program, arm="def lift():\n    Robot.write('arm', 'servo0', 1.0)\n"
        )
        assert [(each.symbol, each.path) for each in found] == [("UndefinedName", "arm.py")]
        assert found[0].message == (
            "undefined name 'Robot': only the main module has it; pass it as an argument"
        )

    def test_main_module_may_pass_on_names_of_rt(self, tmp_path: Path) -> None:
        program = "import arm\n\narm.Robot = Robot\n\n\ndef teleop_main():\n    arm.lift()\n"
        assert (
            linted(tmp_path, program, arm="def lift():\n    Robot.write('arm', 'servo0', 1.0)\n")
            == []
        )

    def test_one_file_can_be_requested(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "studentcode.py": "import os\nimport arm\n\n\ndef teleop_main():\n    arm.lift()\n",
                "arm.py": "import time\n\n\ndef lift():\n    time.sleep(1)\n",
                "other.py": "import os\n",
            },
        )
        for name in ("arm.py", "arm", "./arm.py"):
            assert symbols(lint(request(tmp_path, "studentcode", name))) == ["sleep-too-long"]
        assert symbols(
            lint(request(tmp_path, "studentcode", str(tmp_path / "studentcode.py")))
        ) == ["UnusedImport"]
        assert symbols(lint(request(tmp_path, "studentcode", "other.py"))) == ["UnusedImport"]
        write(tmp_path, {"studentcode.py": "speed = 1\n"})
        assert symbols(lint(request(tmp_path, "studentcode", "studentcode.py"))) == ["missing-main"]

    def test_several_files_can_be_requested(self, tmp_path: Path) -> None:
        texts = {
            "studentcode": "import arm\nimport os\n\n\ndef teleop_main():\n    print(arm)\n",
            "arm": "import re\n",
        }
        write(
            tmp_path,
            {**{f"{name}.py": text for name, text in texts.items()}, "other.py": "import sys\n"},
        )
        found = lint(request(tmp_path, "studentcode", "other.py", "arm.py", "./other.py"))
        assert [each.path for each in found] == ["other.py", "arm.py"]

    def test_invalid_file_name_is_an_error(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {"studentcode.py": "", "parts/arm.py": "", "rt.toml": "", "parts/notes.txt": ""},
        )
        for name, message in {
            "absent.py": "no such file: absent.py",
            "absent.toml": "no such file: absent.toml",
            "rt.toml": "rt.toml is not Python: `rt doctor --only config` checks it",
            "./rt.toml": "rt.toml is not Python: `rt doctor --only config` checks it",
            "parts/notes.txt": "parts/notes.txt is not Python: name a file that ends in .py",
            "parts": "parts is a directory: name a file in it",
        }.items():
            with pytest.raises(ExecutionError, match=message):
                lint(request(tmp_path, "studentcode", name))

    def test_path_that_is_not_utf_8_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match=r"path 'a\\udcff\.py' is not valid UTF-8: rename it"):
            LintRequest(directory="/", config=Config(), files=("a\udcff.py",)).encode()


class TestFiles:
    @pytest.mark.parametrize(
        ("data", "line", "column"),
        [
            (b"def teleop_main()\n    pass\n", 1, 17),
            (b"x = 1\n  y = 2\n", 2, 1),
            (b"return\n", 1, 0),
            (b"def f():\n    await g()\n", 2, 4),
            (b"x = '\xff'\n", 1, 0),
            (b"# coding: nonsense\n", 1, 0),
            (b"x = 1\r\n\r\ny = 1\0\n", 3, 0),
            (b"x = 1\ny = '\xe9'\n", 2, 0),
            ("x = 1\n".encode("utf-16"), 1, 0),
        ],
    )
    def test_syntax_error_is_one_record_with_its_position(
        self, tmp_path: Path, data: bytes, line: int, column: int
    ) -> None:
        (tmp_path / "studentcode.py").write_bytes(data)
        (found,) = lint(request(tmp_path))
        assert (found.type, found.symbol, found.line, found.column) == (
            "error",
            "syntax-error",
            line,
            column,
        )

    def test_other_encodings_and_line_ends_are_read(self, tmp_path: Path) -> None:
        text = (
            "# coding: latin-1\r\nimport os\r\n\x0c\r\n"
            "def teleop_main():\r\n    print('ä'); x = 1\r\n"
        )
        (tmp_path / "studentcode.py").write_bytes(text.encode("latin-1"))
        assert [(each.symbol, each.line, each.column) for each in lint(request(tmp_path))] == [
            ("UnusedImport", 2, 0),
            ("UnusedVariable", 5, 16),
        ]

    def test_file_that_is_too_long_is_one_record(self, tmp_path: Path) -> None:
        assert symbols(linted(tmp_path, "x = 1\n" * (MAX_BYTES // 6 + 1))) == ["too-long"]

    @pytest.mark.parametrize(
        "text",
        [
            "x = " + "(" * 250 + ")" * 250,
            "x = " + "-" * 100_000 + "1",
            "x = " + "[" * 3000,
            "x" + ".y" * 50_000,
        ],
    )
    def test_too_deeply_nested_code_is_one_record(self, tmp_path: Path, text: str) -> None:
        (found,) = linted(tmp_path, text)
        assert found.symbol in {"too-deep", "syntax-error"}

    def test_long_sum_is_not_too_deep(self, tmp_path: Path) -> None:
        assert (
            linted(
                tmp_path, f"print({' + '.join(['1'] * 800)})\n\n\ndef teleop_main():\n    pass\n"
            )
            == []
        )

    def test_missing_code_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ExecutionError, match=r"no team code at .*; write it"):
            lint(request(tmp_path))

    def test_invalid_catalog_is_an_error(self, tmp_path: Path) -> None:
        write(tmp_path, {"mine.toml": "[thing]\ndevice_id = 1\n", "studentcode.py": ""})
        with pytest.raises(CatalogError):
            lint(
                LintRequest(
                    directory=str(tmp_path),
                    config=Config(exec_module="studentcode", dev_catalog="mine.toml"),
                )
            )

    def test_custom_catalog_is_used(self, tmp_path: Path) -> None:
        catalog = (
            "[loud-horn]\ndevice_id = 0\n"
            'params = [{ name = "on", type = "bool", writeable = true }]\n'
        )
        program = (
            'def teleop_main():\n    Robot.write("horn", "on", True)\n'
            '    Robot.write("horn", "switch0", True)\n'
        )
        write(tmp_path, {"mine.toml": catalog, "studentcode.py": program})
        config = Config(
            exec_module="studentcode",
            dev_catalog="mine.toml",
            dev_name={"horn": uid_of("limit-switch")},
        )
        custom = LintRequest(directory=str(tmp_path), config=config)
        assert [(each.symbol, each.line) for each in lint(custom)] == [("unknown-parameter", 3)]


class TestRecords:
    def test_format_is_that_of_pylint(self, tmp_path: Path) -> None:
        (found,) = linted(tmp_path, "import os\n\n\ndef teleop_main():\n    pass\n")
        import msgspec

        assert msgspec.to_builtins(found) == {
            "type": "warning",
            "module": "studentcode",
            "obj": "",
            "line": 1,
            "column": 0,
            "path": "studentcode.py",
            "symbol": "UnusedImport",
            "message": "'os' imported but unused: remove the import",
            "message-id": "F401",
        }
        assert found.text() == f"studentcode.py:1:1: warning: {found.message} [UnusedImport]"

    def test_noqa_suppresses_findings(self, tmp_path: Path) -> None:
        program = """
            import os  # noqa
            import sys  # noqa: F401
            import re  # noqa: F811, RT101
            import json

            def teleop_main():
                pass
        """
        assert [(each.symbol, each.line) for each in linted(tmp_path, program)] == [
            ("UnusedImport", 4),
            ("UnusedImport", 5),
        ]

    def test_number_of_records_is_limited_and_errors_are_kept(self, tmp_path: Path) -> None:
        imports = "".join(f"import json as m{number}\n" for number in range(10))
        program = f"{imports}def teleop_main():\n    print(absent)\n"
        found = sort_records(linted(tmp_path, program), limit=5)
        assert len(found) == 6
        assert {"UndefinedName", "too-many-records"} < set(symbols(found))
        assert found[-1].message == "6 more records are not shown: fix these first"

    def test_text_that_cannot_be_encoded_is_escaped(self, tmp_path: Path) -> None:
        import msgspec

        found = linted(tmp_path, 'def teleop_main():\n    Robot.get("\\ud800\\n", "duty_cycle")\n')
        assert symbols(found) == ["unknown-device"]
        msgspec.json.encode(found)
        msgspec.msgpack.encode(found)
        assert len(NAMES) > 5
