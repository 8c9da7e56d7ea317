"""The key directory, the detection of key files, and errors that quote no secret."""

import os
from pathlib import Path
from typing import Any

import pytest

from rt.access.key_directory import find_project, is_secret, key_directory, keys_home
from rt.access.keyring import Keyring
from rt.access.station_key import StationKey
from rt.config import Config
from rt.errors import ConfigError
from rt.root.lifecycle import reject_key_files


@pytest.mark.parametrize(
    ("env", "uid", "home"),
    [
        ({"HOME": "/home/team"}, 1000, "/home/team/.local/state/rt"),
        ({"HOME": "/home/team", "XDG_STATE_HOME": "/data"}, 1000, "/data/rt"),
        ({"HOME": "/home/team", "XDG_STATE_HOME": "data"}, 1000, "/home/team/.local/state/rt"),
        ({"STATE_DIRECTORY": "/var/lib/robot"}, 1000, "/var/lib/robot"),
        ({"HOME": "/root"}, 0, "/var/lib/rt"),
        ({"HOME": "/root", "XDG_STATE_HOME": "/data"}, 0, "/data/rt"),
    ],
)
def test_home_of_the_keys_of_each_user(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], uid: int, home: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert keys_home(env) == Path(home)


def test_option_overrides_the_default_directory(tmp_path: Path) -> None:
    assert (
        key_directory("secret", "default", env={}, folder=tmp_path).directory == tmp_path / "secret"
    )
    assert key_directory("/secret", "default", env={}, folder=tmp_path).directory == Path("/secret")


def test_project_directory_without_keys_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "of_the_piano.py").touch()
    found = key_directory("auto", "default", env={"XDG_STATE_HOME": "/data"}, folder=tmp_path)
    assert (found.directory, found.hint) == (Path("/data/rt/default/keys"), "")


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("keys/robot.key", True),
        ("keys/anything", True),
        ("keys", True),
        ("code/../keys/x", True),
        ("code/linked.py", True),
        ("code/folder/x.py", True),
        ("loop", True),
        ("blue.rtkey", True),
        ("copy/robot.key", True),
        ("copy/blue.station", True),
        ("studentcode.py", False),
        ("code/x.toml", False),
    ],
)
def test_key_files_are_detected(tmp_path: Path, path: str, secret: bool) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code/linked.py").symlink_to("../keys/robot.key")
    (tmp_path / "code/folder").symlink_to("../keys")
    (tmp_path / "loop").symlink_to("loop")
    assert is_secret(tmp_path / path, tmp_path / "keys") is secret


@pytest.mark.parametrize("option", ["dev_catalog", "exec_module", "log_file"])
def test_option_must_not_name_a_key_file(tmp_path: Path, option: str) -> None:
    keys = tmp_path / "keys"
    (tmp_path / "link").symlink_to(keys)
    for path in (
        keys / "robot.key",
        tmp_path / "link" / "robot.key",
        tmp_path / "x" / ".." / "keys" / "log",
    ):
        named: dict[str, Any] = {option: str(path)}
        with pytest.raises(ConfigError, match=f"{option} must not name a key file"):
            reject_key_files(Config(keys_dir=str(keys), **named))
    reject_key_files(Config(keys_dir=str(keys)))


def test_find_project_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "robot/code").mkdir(parents=True)
    assert find_project(tmp_path / "robot/code/blue.rtkey") is None
    (tmp_path / "robot/rt.toml").touch()
    assert find_project(tmp_path / "robot/code/blue.rtkey") == tmp_path / "robot"


DAMAGES = [
    lambda text, secret: text.replace(secret, secret[:-1]),
    lambda text, secret: text.replace(secret, secret + "~"),
    lambda text, secret: text.replace(f'"{secret}"', secret),
    lambda text, secret: text + f'{secret[:5].strip()} = "{secret}" "{secret}"\n',
    lambda text, secret: text.replace(secret, secret.replace(secret[3], " ")),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_key_is_not_quoted(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    ring = Keyring(tmp_path / "keys")
    station_key = ring.new("blue")
    robot = ring.robot()
    path = tmp_path / "blue.rtkey"
    station_key.write(path)
    files = {
        tmp_path / "keys/robot.key": robot.secret,
        tmp_path / "keys/blue.station": station_key.datagram.secret.hex(),
        path: station_key.secret,
    }
    for file, secret in files.items():
        file.write_text(damage(file.read_text(), secret))
    messages = []
    for load in (ring.robot, lambda: StationKey.load(path)):
        with pytest.raises(ConfigError) as raised:
            load()
        messages.append(raised.value.message)
    ring.refresh()
    assert ring.problems
    messages += ring.problems
    for secret in files.values():
        for part in (secret[:8], secret[-9:-1]):
            assert part not in "".join(messages)
