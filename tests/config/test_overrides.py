"""The overrides file: where it is, which sources it overrides, and what a damaged one does."""

import json
import os
from pathlib import Path

import pytest

from rt import config
from rt.config import overrides
from rt.errors import ConfigError


def place(tmp_path: Path, instance: str = "default") -> Path:
    directory = overrides.state_directory(instance, {"XDG_STATE_HOME": str(tmp_path / "state")})
    assert directory is not None
    return directory


def load(tmp_path: Path, text: str = "", **sources: object) -> config.Loaded:
    (tmp_path / "rt.toml").write_text(text)
    given: dict[str, str] = sources.pop("env", {})  # type: ignore[assignment]
    env = {"XDG_STATE_HOME": str(tmp_path / "state"), **given}
    return config.load(env=env, cwd=tmp_path, **sources)  # type: ignore[arg-type]


class TestPlace:
    @pytest.mark.parametrize(
        ("env", "expected"),
        [
            ({"HOME": "/home/team"}, "/home/team/.local/state/rt/a"),
            ({"HOME": "/home/team", "XDG_STATE_HOME": "/state"}, "/state/rt/a"),
            ({"HOME": "/home/team", "XDG_STATE_HOME": "relative"}, "/home/team/.local/state/rt/a"),
            (
                {"HOME": "/home/team", "STATE_DIRECTORY": "/var/lib/robot:/var/lib/other"},
                "/var/lib/robot/a",
            ),
        ],
    )
    def test_each_instance_has_its_own_directory(self, env: dict[str, str], expected: str) -> None:
        assert overrides.state_directory("a", env) == Path(expected)

    def test_without_a_state_directory_options_cannot_be_set(self) -> None:
        assert overrides.read(None) == {}
        with pytest.raises(ConfigError, match="set HOME or XDG_STATE_HOME"):
            overrides.write(None, {"debug": True})


class TestFile:
    def test_written_values_are_read_back(self, tmp_path: Path) -> None:
        values = {
            "debug": True,
            "dev_name": {"left": "5"},
            "log_level": "debug",
            "dev_poll_interval": 0.05,
        }
        overrides.write(tmp_path / "a" / "b", values)
        assert overrides.read(tmp_path / "a" / "b") == values

    def test_only_the_owner_can_read_it(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            overrides.write(tmp_path / "state", {"debug": True})
        finally:
            os.umask(before)
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "state" / overrides.FILE_NAME).stat().st_mode & 0o777 == 0o600

    def test_no_temporary_file_remains(self, tmp_path: Path) -> None:
        for number in range(3):
            overrides.write(tmp_path, {"port_base": number})
        assert [path.name for path in tmp_path.iterdir()] == [overrides.FILE_NAME]

    def test_empty_overrides_remove_the_file(self, tmp_path: Path) -> None:
        overrides.write(tmp_path, {"debug": True})
        overrides.write(tmp_path, {})
        overrides.write(tmp_path, {})
        assert list(tmp_path.iterdir()) == []
        assert overrides.read(tmp_path) == {}

    def test_failed_write_leaves_the_former_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        overrides.write(tmp_path, {"debug": True})

        def full(_fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(
            ConfigError, match=r"cannot write .*: No space left on device; nothing was changed"
        ):
            overrides.write(tmp_path, {"debug": False})
        assert overrides.read(tmp_path) == {"debug": True}
        assert [path.name for path in tmp_path.iterdir()] == [overrides.FILE_NAME]

    def test_directory_that_is_a_file_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("")
        assert overrides.read(tmp_path / "state") == {}
        with pytest.raises(ConfigError, match="cannot write"):
            overrides.write(tmp_path / "state", {"debug": True})

    @pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b'"x"'])
    def test_damaged_file_is_refused_with_a_remedy(self, tmp_path: Path, data: bytes) -> None:
        directory = place(tmp_path)
        directory.mkdir(parents=True)
        (directory / overrides.FILE_NAME).write_bytes(data)
        with pytest.raises(
            ConfigError, match="does not contain options; run `rt config unset --all` or remove it"
        ):
            load(tmp_path)


class TestPrecedence:
    def test_overrides_override_rt_toml(self, tmp_path: Path) -> None:
        overrides.write(place(tmp_path), {"dev_poll_interval": 0.05})
        loaded = load(tmp_path, "dev_poll_interval = 0.1\nport_base = 7000\n")
        assert loaded.config.dev_poll_interval == 0.05
        assert loaded.origins["dev_poll_interval"] == "set_option"
        assert loaded.origins["port_base"] == "rt.toml:2"

    def test_variables_and_flags_override_overrides(self, tmp_path: Path) -> None:
        overrides.write(place(tmp_path), {"dev_poll_interval": 0.05, "log_level": "debug"})
        loaded = load(tmp_path, env={"RT_LOG_LEVEL": "error"}, flags={"dev_poll_interval": "0.2"})
        assert (loaded.config.log_level, loaded.config.dev_poll_interval) == ("error", 0.2)
        assert loaded.origins["log_level"] == "RT_LOG_LEVEL"

    def test_maps_are_merged_entry_by_entry(self, tmp_path: Path) -> None:
        overrides.write(place(tmp_path), {"dev_name": {"left": "9", "arm": "7"}})
        loaded = load(
            tmp_path, '[dev_name]\nleft = "1"\nright = "2"\n', flags={"dev_name": ("arm:8",)}
        )
        assert loaded.config.dev_name == {"right": "2", "left": "9", "arm": "8"}
        assert loaded.origins["dev_name"] == "rt.toml:1, set_option, --dev-name"

    def test_overrides_apply_to_their_instance_only(self, tmp_path: Path) -> None:
        overrides.write(place(tmp_path, "blue"), {"debug": True})
        assert not load(tmp_path).config.debug
        assert load(tmp_path, 'instance = "blue"').config.debug
        assert load(tmp_path, env={"RT_INSTANCE": "blue"}).config.debug
        assert load(tmp_path, 'instance = "gold"', flags={"instance": "blue"}).config.debug
        assert not load(tmp_path, flags={"instance": "blue"}, with_overrides=False).config.debug

    def test_bad_instance_name_is_reported_where_it_was_given(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"--instance: instance = '\.\./x' is not 1 to 32"):
            load(tmp_path, flags={"instance": "../x"})

    def test_value_that_is_no_longer_allowed_is_refused_with_a_remedy(self, tmp_path: Path) -> None:
        directory = place(tmp_path)
        directory.mkdir(parents=True)
        (directory / overrides.FILE_NAME).write_text(json.dumps({"dev_poll_interval": 5}))
        with pytest.raises(ConfigError) as raised:
            load(tmp_path)
        assert raised.value.message == (
            "set_option: dev_poll_interval = 5 is not a number from 0.001 to 1 (s);"
            f" run `rt config unset`, or correct {directory / overrides.FILE_NAME}"
        )
