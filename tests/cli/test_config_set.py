"""The `rt config set` and `rt config unset` commands."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rt.cli import main
from rt.config import overrides


class Done(NamedTuple):
    status: int
    out: str
    err: str


Rt = Callable[..., Done]


@pytest.fixture
def rt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Rt]:
    """The command in an empty directory, with its own state directory."""
    for name in [
        name for name in os.environ if name.startswith("RT_") or name == "STATE_DIRECTORY"
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        status = main.run(arguments)
        return Done(status, *capsys.readouterr())

    return run  # type: ignore[return-value]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state" / "rt" / "default"


def shown(rt: Rt, name: str) -> Any:
    return json.loads(rt("config", "--json", name).out)[name]


class TestSet:
    def test_set_value_overrides_rt_toml_at_next_start(self, rt: Rt, tmp_path: Path) -> None:
        (tmp_path / "rt.toml").write_text("dev_poll_interval = 0.1\n")
        done = rt("config", "set", "dev_poll_interval", "0.05")
        assert done == (
            0,
            "dev_poll_interval: 0.05 s (from set_option); takes effect at the next start\n",
            "",
        )
        assert shown(rt, "dev_poll_interval") == {"value": 0.05, "origin": "set_option"}

    def test_set_reports_overriding_variable(self, rt: Rt, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RT_LOG_LEVEL", "error")
        assert (
            "log_level: error (from RT_LOG_LEVEL)" in rt("config", "set", "log_level", "debug").out
        )

    @pytest.mark.parametrize(
        ("words", "value"),
        [
            (["debug", "true"], True),
            (["bind", "0.0.0.0"], "0.0.0.0"),
            (["dev_ports", "/dev/ttyACM*", "/dev/ttyUSB0"], ["/dev/ttyACM*", "/dev/ttyUSB0"]),
            (["dev_name", "arm:7", "leg:8"], {"arm": "7", "leg": "8"}),
            (["dev_name.arm", "7"], {"arm": "7"}),
            (["exec_timeout..*_main", "0.1"], {".*_setup": 1.0, ".*_main": 0.1}),
        ],
    )
    def test_set_accepts_typed_values_of_all_options(
        self, rt: Rt, words: list[str], value: Any
    ) -> None:
        assert rt("config", "set", *words).status == 0
        assert shown(rt, words[0].partition(".")[0])["value"] == value

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (
                ["log_levle", "info"],
                "rt config set: unknown option 'log_levle'; did you mean log_level?",
            ),
            (
                ["log_level", "warn"],
                "is not one of debug, info, warning, error, critical; did you mean warning?",
            ),
            (["log_level", "info", "error"], "log_level takes one value"),
            (["log_level.x", "info"], "log_level has no entries"),
            (["instance", "second"], "set it in rt.toml or by --instance"),
            (["dev_name.12", "7"], "invalid device name '12'"),
            (["dev_name", "arm"], "is not NAME:VALUE"),
            (["exec_module", "a\udcff.py"], "'a\\udcff.py' is not valid text"),
            (
                ["dev_name", "arm:7", "leg:7"],
                "set_option: dev_name gives arm and leg the same UID 7",
            ),
            (["update_addr", "udp://x:{port9}"], "unknown placeholder in"),
        ],
    )
    def test_invalid_setting_is_reported_and_changes_nothing(
        self, rt: Rt, state: Path, words: list[str], expected: str
    ) -> None:
        done = rt("config", "set", *words)
        assert done.status == 78
        assert expected in done.err
        assert overrides.read(state) == {}

    def test_invalid_catalog_is_refused(self, rt: Rt, state: Path) -> None:
        assert (
            "absent.toml: cannot read the catalog"
            in rt("config", "set", "dev_catalog", "absent.toml").err
        )
        assert overrides.read(state) == {}

    def test_each_instance_has_its_own_overrides(self, rt: Rt) -> None:
        rt("--instance", "second", "config", "set", "debug", "true")
        assert shown(rt, "debug")["value"] is False
        assert "true" in rt("--instance", "second", "config", "debug").out

    def test_concurrent_change_is_refused(self, rt: Rt, state: Path) -> None:
        state.mkdir(parents=True)
        fd = os.open(state, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            for words in (["set", "debug", "true"], ["unset", "debug"], ["unset", "--all"]):
                assert "another process is changing the options" in rt("config", *words).err
        finally:
            os.close(fd)
        assert rt("config", "set", "debug", "true").status == 0


class TestUnset:
    def test_unset_removes_options_and_entries(self, rt: Rt, state: Path) -> None:
        rt("config", "set", "dev_name", "arm:7", "leg:8")
        rt("config", "set", "update_interval", "0.5")
        done = rt("config", "unset", "update_interval", "dev_name.arm")
        assert (
            done.out.splitlines()[0]
            == "update_interval: 0.1 s (from default); takes effect at the next start"
        )
        assert overrides.read(state) == {"dev_name": {"leg": "8"}}
        assert rt("config", "unset", "--all").out == "all values removed\n"
        assert overrides.read(state) == {}

    def test_unset_refuses_only_unknown_names(self, rt: Rt) -> None:
        assert rt("config", "unset", "debug").status == 0
        assert "unknown option 'debgu'; did you mean debug?" in rt("config", "unset", "debgu").err
        assert rt("config", "unset").status == rt("config", "unset", "--all", "debug").status == 2

    @pytest.mark.parametrize("data", [b"{", b'{"of_another_version": 1, "debug": true}'])
    def test_unset_repairs_invalid_overrides(self, rt: Rt, state: Path, data: bytes) -> None:
        state.mkdir(parents=True)
        (state / overrides.FILE_NAME).write_bytes(data)
        assert rt("config").status == 78
        if b"of_another" in data:
            assert rt("config", "unset", "of_another_version").status == 0
            assert shown(rt, "debug")["value"] is True
        else:
            assert rt("config", "unset", "--all").status == 0
            assert rt("config").status == 0


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("rt config log_l", ["log_level"]),
        ("rt config set log_l", ["log_level"]),
        ("rt config set log_level w", ["warning"]),
        ("rt config set debug t", ["true"]),
        ("rt config unset dev_n", ["dev_name"]),
    ],
)
def test_options_and_values_are_completed(
    rt: Rt, monkeypatch: pytest.MonkeyPatch, words: str, found: list[str]
) -> None:
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setenv("_RT_COMPLETE", "bash_complete")
    assert [line.partition(",")[2] for line in rt().out.splitlines()] == found


def test_set_and_unset_have_help(rt: Rt) -> None:
    assert "\n  rt config set NAME VALUE" in rt("config", "--help").out
    assert "Usage: rt config set [OPTIONS] NAME VALUE..." in rt("config", "set", "--help").out
    assert "Usage: rt config unset [OPTIONS] NAME..." in rt("config", "unset", "--help").out


def test_opening_robot_without_keys_warns(rt: Rt) -> None:
    assert "will refuse to start" in rt("config", "set", "bind", "0.0.0.0").err
    assert rt("keys", "new", "blue", "--output", "-").status == 0
    assert "will refuse to start" not in rt("config", "set", "bind", "0.0.0.0").err
