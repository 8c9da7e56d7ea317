"""Output and exit statuses of the command line."""

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import rt
from rt import config
from rt.broker.handler import Broker
from rt.cli import main
from rt.cli.main import METHODS_AS_VERBS, VERBS
from rt.client.option_flags import click_options, text_of
from rt.config.template import template
from rt.errors import EmergencyStopException, InstanceBusyError
from rt.executor.dispatcher import Dispatcher
from rt.smartdevice.handler import DeviceHandler

Result = subprocess.CompletedProcess[str]
Command = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A new `rt` process in an empty directory without RT_* variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RT_")}

    def run(*arguments: str, stdin: str = "", **env: str) -> Result:
        return subprocess.run(
            [sys.executable, "-P", "-m", "rt", *arguments],
            cwd=tmp_path,
            env={
                **clean,
                "PYTHONPATH": str(Path(rt.__file__).parent.parent),
                "COLUMNS": "120",
                **env,
            },
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


class TestGroup:
    def test_version_flag_prints_version(self, command: Command) -> None:
        for arguments in (["--version"], ["--debug", "--version"]):
            assert command(*arguments).stdout == f"rt {rt.__version__}\n"

    def test_commands_run_with_closed_streams(self) -> None:
        python = shlex.quote(sys.executable)
        for line in (f"{python} -P -m rt format-msg <&- >&- 2>&-", f"{python} -P -m rt config >&-"):
            environment = {**os.environ, "PYTHONPATH": str(Path(rt.__file__).parent.parent)}
            assert (
                subprocess.run(
                    line, shell=True, env=environment, timeout=30, check=False
                ).returncode
                == 0
            )

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize(
        "arguments", [["config", "bind"], ["logs", "robot.log"], ["--version"]], ids=" ".join
    )
    def test_full_disk_is_reported_as_output_error(
        self, arguments: list[str], unbuffered: str, tmp_path: Path
    ) -> None:
        (tmp_path / "robot.log").write_bytes(b"said\n")
        source = str(Path(rt.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": unbuffered}
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-P", "-m", "rt", *arguments]
            done = subprocess.run(
                command,
                stdout=full,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=tmp_path,
                timeout=30,
                check=False,
            )
        assert (done.returncode, done.stderr) == (
            74,
            b"rt: cannot write output: No space left on device\n",
        )

    @pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
    def test_help_lists_every_verb_and_first_steps(
        self, command: Command, arguments: list[str]
    ) -> None:
        result = command(*arguments)
        assert result.returncode == 0
        assert "New here?\n    rt demo " in result.stdout
        for name, text in main.VERBS.items():
            assert f"  {name} " in result.stdout
            assert text in result.stdout

    def test_help_imports_no_verb(self) -> None:
        code = (
            "import sys; from rt.cli import main; main.run(['--help']);"
            "allowed = ('rt.cli', 'rt.errors', 'rt.startup', 'rt.terminal');"
            "mine = [m for m in sys.modules if m.startswith('rt.')];"
            "print([m for m in mine if not m.startswith(allowed)])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert result.stdout.splitlines()[-1] == "[]"

    def test_unknown_verb_suggests_nearest(self, command: Command) -> None:
        result = command("confg")
        assert result.returncode == 2
        assert result.stderr.splitlines()[0] == "rt: unknown verb 'confg'; did you mean config?"

    @pytest.mark.parametrize(
        ("verb", "method"),
        [
            ("estop", "estop"),
            ("stop", "idle"),
            ("idle", "idle"),
            ("auto", "auto"),
            ("teleop", "teleop"),
            ("mode", "mode"),
        ],
    )
    def test_method_used_as_verb_suggests_call(
        self, command: Command, verb: str, method: str
    ) -> None:
        result = command(verb)
        assert result.returncode == 2
        assert result.stderr.splitlines()[0] == f"rt: unknown verb {verb!r}; use `rt call {method}`"

    def test_methods_suggested_for_words_exist(self) -> None:
        assert not METHODS_AS_VERBS.keys() & VERBS.keys()
        methods = {
            name for service in (Dispatcher, DeviceHandler, Broker) for name in vars(service)
        }
        assert set(METHODS_AS_VERBS.values()) <= methods

    def test_unknown_flag_is_configuration_error(self, command: Command) -> None:
        result = command("config", "--port-bse", "7000")
        assert (result.returncode, result.stdout) == (78, "")
        assert result.stderr == "rt: --port-bse: unknown flag; did you mean --port-base?\n"

    @pytest.mark.parametrize(
        "name", ["devices", "read", "subscribe", "ping", "format-msg", "parse-msg"]
    )
    def test_verb_help_is_short_and_has_examples(self, command: Command, name: str) -> None:
        text, _, flags = command(name, "--help").stdout.partition("Options:")
        assert text.startswith(f"Usage: rt {name} ")
        assert text.count(f"\n  rt {name}") >= 3
        assert len(text.splitlines()) <= 25
        assert flags

    def test_readme_lists_every_verb(self) -> None:
        readme = (Path(rt.__file__).parent.parent / "README.md").read_text()
        for name in main.VERBS:
            assert f"| `rt {name}" in readme

    def test_verb_module_has_command(self) -> None:
        for name in ("config", "init", "doctor"):
            assert isinstance(main.cli.get_command(click.Context(main.cli), name), click.Command)


class TestErrors:
    @pytest.fixture
    def failing(self) -> Callable[[BaseException, list[str]], int]:
        def run(error: BaseException, arguments: list[str]) -> int:
            @click.command
            @click_options("port_base")
            def command(**_: object) -> None:
                raise error

            group = main.LazyGroup("rt", callback=main.cli.callback, params=main.cli.params)
            group.get_command = lambda *_: command  # type: ignore[method-assign]
            return main.run(arguments, group)

        return run

    def test_rt_error_has_message_and_exit_status(
        self, failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert failing(InstanceBusyError("process 7 holds it"), ["run"]) == 75
        assert capsys.readouterr().err == "rt: process 7 holds it\n"

    def test_exception_group_is_flattened(
        self, failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        group = ExceptionGroup(
            "in a nursery", [ExceptionGroup("in another", [EmergencyStopException()])]
        )
        assert failing(group, ["run"]) == 255
        assert capsys.readouterr().err == "rt: emergency stop\n"

    def test_unknown_error_is_internal_with_traceback_for_debug(
        self, failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert failing(ZeroDivisionError("by zero"), ["run"]) == 70
        err = capsys.readouterr().err
        assert err.startswith("rt: internal error: ZeroDivisionError: by zero\n")
        assert "Traceback" not in err
        for arguments in (["--debug", "run"], ["run", "--debug"]):
            assert failing(ZeroDivisionError("by zero"), arguments) == 70
            assert "Traceback" in capsys.readouterr().err

    def test_removed_working_directory_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert main.run(["config", "port_base"]) == 66
        message = "rt: the current directory was removed; change to another one\n"
        assert capsys.readouterr().err == message

    @pytest.mark.parametrize(
        "error", [BrokenPipeError(), ExceptionGroup("tasks", [BrokenPipeError()])]
    )
    def test_closed_output_pipe_is_no_error(
        self, failing: Callable[..., int], error: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdout", sys.stdout)
        assert failing(error, ["run"]) == 0

    @pytest.mark.parametrize(
        "error",
        [KeyboardInterrupt(), BaseExceptionGroup("tasks", [KeyboardInterrupt()]), click.Abort()],
    )
    def test_interrupt_exits_with_130_without_message(
        self, failing: Callable[..., int], error: BaseException
    ) -> None:
        assert failing(error, ["run"]) == 130


class TestConfig:
    def test_config_shows_values_and_origins(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "rt.toml").write_text("\nport_base = 7000\n[dev_name]\nleft = '5'\n")
        result = command("config", "--log-level", "debug", RT_SERVICE_WORKERS="9")
        lines = {
            words[0]: words[1:]
            for line in result.stdout.splitlines()
            if len(words := line.split()) > 2
        }
        assert lines["port_base"] == ["7000", "rt.toml:2"]
        assert lines["dev_name"] == ["left:5", "rt.toml:3"]
        assert lines["service_workers"] == ["9", "RT_SERVICE_WORKERS"]
        assert lines["log_level"] == ["debug", "--log-level"]
        assert lines["update_interval"] == ["0.1", "s", "default"]
        assert set(config.OPTIONS) <= set(lines)

    def test_config_json_has_values_and_origins(self, command: Command) -> None:
        shown = json.loads(command("--instance", "second", "config", "--json").stdout)
        assert list(shown) == list(config.OPTIONS)
        assert shown["instance"] == {"value": "second", "origin": "--instance"}
        assert shown["exec_timeout"]["value"] == {".*_setup": 1.0, ".*_main": 0.05}

    def test_config_shows_only_named_options(self, command: Command) -> None:
        assert set(json.loads(command("config", "--json", "bind", "debug").stdout)) == {
            "bind",
            "debug",
        }
        result = command("config", "bnd")
        assert (result.returncode, result.stderr) == (
            78,
            "rt config: unknown option 'bnd'; did you mean bind?\n",
        )

    def test_invalid_value_is_reported_with_its_line(
        self, command: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "rt.toml").write_text("port_base = 1\n")
        result = command("config")
        assert result.returncode == 78
        assert (
            result.stderr
            == "rt: rt.toml:1: port_base = 1 is not a whole number from 1024 to 65531\n"
        )
        assert command("config", "--port-base", "7000").returncode == 78

    def test_every_option_has_a_flag(self, command: Command) -> None:
        text = command("config", "--help").stdout
        for option in config.OPTIONS.values():
            assert option.flag in text

    def test_option_values_are_formatted_as_user_input(self) -> None:
        assert text_of({"a": 1.0, "b": 0.05}) == "a:1, b:0.05"
        assert text_of(("x", "y")) == "x, y"
        assert text_of(True) == "true"


class TestLogs:
    def test_missing_log_file_is_reported_with_its_writer(
        self, command: Command, tmp_path: Path
    ) -> None:
        file = tmp_path / "robot.log"
        result = command("logs", "--no-follow", RT_LOG_FILE=str(file))
        message = (
            f"rt: robot 'default' has no log file: {file} does not exist; `rt run` writes it\n"
        )
        assert (result.returncode, result.stderr) == (78, message)


class TestInit:
    def test_init_writes_two_valid_files(self, command: Command, tmp_path: Path) -> None:
        result = command("init")
        assert result.returncode == 0
        compile((tmp_path / "studentcode.py").read_text(), "studentcode.py", "exec")
        assert set(json.loads(command("config", "--json").stdout)["port_base"].values()) == {
            6000,
            "default",
        }

    def test_init_keeps_existing_files_without_force(
        self, command: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "studentcode.py").write_text("mine = 1\n")
        result = command("init")
        assert result.returncode == 0
        assert result.stdout.splitlines()[0] == "kept studentcode.py, wrote rt.toml"
        assert (tmp_path / "rt.toml").exists()
        assert (tmp_path / "studentcode.py").read_text() == "mine = 1\n"
        assert command("init", "--force").returncode == 0
        assert "teleop_main" in (tmp_path / "studentcode.py").read_text()

    def test_init_writes_to_given_directory(self, command: Command, tmp_path: Path) -> None:
        assert command("init", "robots/first").returncode == 0
        assert {path.name for path in (tmp_path / "robots/first").iterdir()} == {
            "rt.toml",
            "studentcode.py",
        }

    def test_uncommented_template_equals_defaults(self, tmp_path: Path) -> None:
        text = template()
        assert tomllib.loads(text) == {}
        lines = [line for line in text.splitlines()[3:] if not line.startswith("## ")]
        (tmp_path / "rt.toml").write_text(
            "\n".join(line.removeprefix("# ").replace("----", "#") for line in lines)
        )
        loaded = config.load(env={}, cwd=tmp_path)
        assert loaded.config == config.Config(dev_name=loaded.config.dev_name)
        assert "default" not in {origin.rpartition(", ")[2] for origin in loaded.origins.values()}


class TestMessages:
    def test_invalid_stdin_line_is_reported_by_number(self, command: Command) -> None:
        result = command(
            "format-msg", stdin='{"type": "PING"}\n\n{"type": "PIN"}\n{"type": "DEV_DISABLE"}\n'
        )
        assert (result.returncode, result.stdout) == (1, "02100210\n02160216\n")
        assert result.stderr == 'rt: line 3, character 2: unknown type "PIN"; did you mean PING?\n'

    def test_parse_msg_inverts_format_msg(self, command: Command) -> None:
        frames = "0415070307efbeadde0132\n02100210\n"
        parsed = command("parse-msg", "--device", "rfid", stdin=frames)
        assert parsed.stdout.splitlines()[0] == (
            '{"type": "DEV_DATA", "device": "rfid", "params": {"id": 3735928559, "tag_detect": 1}}'
        )
        assert command("format-msg", "-", stdin=parsed.stdout).stdout == frames

    def test_names_and_catalog_of_options_are_used(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "rt.toml").write_text("dev_catalog = 'mine.toml'\n[dev_name]\nhorn = '5'\n")
        (tmp_path / "mine.toml").write_text(
            "[loud-horn]\ndevice_id = 0\n"
            'params = [{ name = "on", type = "bool", writeable = true }]\n'
        )
        text = '{"type": "DEV_WRITE", "device": "horn", "params": {"on": true}}'
        frame = command("format-msg", text).stdout.strip()
        parsed = json.loads(command("parse-msg", "--device", "horn", frame).stdout)
        assert parsed == {"type": "DEV_WRITE", "device": "loud-horn", "params": {"on": True}}
        result = command("parse-msg", "--device", "hron", frame)
        assert (result.returncode, result.stderr) == (
            1,
            "rt: there is no device 'hron'; did you mean horn?\n",
        )
