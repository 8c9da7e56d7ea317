"""get_option and set_option: results, overrides and refusals."""

from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from rt import config
from rt.access.keyring import Keyring
from rt.broker.remote_options import ALLOWED, CALL_INTERVAL, CALLS_BURST, REASONS, Overrides
from rt.config import Config, overrides
from rt.config.option_info import OPTIONS
from rt.errors import ConfigError
from rt.remote.caller import Caller, set_caller

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda each: st.lists(each) | st.dictionaries(st.text() | st.integers(), each),
)
CONFIG = Config(dev_name={"left": "5", "right": "6"}, log_level="warning")


@pytest.fixture
def remote(tmp_path: Path) -> Overrides:
    (tmp_path / "team").mkdir()
    return Overrides(CONFIG, tmp_path / "state", tmp_path / "team")


def refusal(remote: Overrides, **options: object) -> str:
    with pytest.raises(ConfigError) as raised:
        remote.set(options)
    return raised.value.message


def as_(peer: bytes, function: Any, *args: Any, **options: Any) -> Any:
    """Call a function as a peer of the router would."""
    context = copy_context()
    context.run(set_caller, Caller(peer, is_routed=True))
    return context.run(function, *args, **options)


class TestRate:
    def test_flooding_station_is_refused_and_another_is_not(self, remote: Overrides) -> None:
        for number in range(CALLS_BURST):
            as_(b"blue/a", remote.set, {"dev_poll_interval": 0.01 + number / 1000})
        for peer in (b"blue/a", b"blue/b", b"\0station/blue/7"):
            with pytest.raises(ConfigError, match="this station sets options too often"):
                as_(peer, remote.set, {"log_level": "debug"})
        assert "log_level" not in as_(b"red/a", remote.set, {"dev_poll_interval": 0.05})
        for number in range(2 * CALLS_BURST):
            remote.set({"dev_poll_interval": 0.01 + number / 1000})

    def test_callers_of_an_insecure_robot_share_one_rate(self, tmp_path: Path) -> None:
        remote = Overrides(Config(insecure=True, bind="0.0.0.0"), tmp_path / "state", tmp_path)
        for number in range(CALLS_BURST):
            as_(b"x%d" % number, remote.set, {"debug": bool(number % 2)})
        with pytest.raises(ConfigError, match="this station sets options too often"):
            as_(b"another", remote.set, {"debug": True})

    def test_refused_values_and_empty_calls_count_too(self, remote: Overrides) -> None:
        for number in range(CALLS_BURST):
            if number % 2:
                assert as_(b"blue/a", remote.set, {}) == {}
            else:
                with pytest.raises(ConfigError, match="dev_poll_interval"):
                    as_(b"blue/a", remote.set, {"dev_poll_interval": 5.0})
        with pytest.raises(ConfigError, match="this station sets options too often"):
            as_(b"blue/a", remote.set, {})

    def test_station_sets_options_again_after_a_while(self, tmp_path: Path) -> None:
        now = 100.0
        remote = Overrides(CONFIG, tmp_path / "state", tmp_path, lambda: now)
        for _ in range(CALLS_BURST):
            as_(b"blue/a", remote.set, {"debug": True})
        now += CALL_INTERVAL
        as_(b"blue/a", remote.set, {"debug": False})
        with pytest.raises(ConfigError, match="too often"):
            as_(b"blue/a", remote.set, {"debug": True})

    def test_only_what_changes_is_logged(self, remote: Overrides) -> None:
        with structlog.testing.capture_logs() as logs:
            remote._log = structlog.get_logger()
            for value in (0.05, 0.05, 0.06, 0.06):
                as_(b"blue/a", remote.set, {"dev_poll_interval": value})
        assert [(each["options"], each["by"]) for each in logs] == [
            (["dev_poll_interval"], "blue")
        ] * 2


class TestGet:
    def test_all_options_one_option_and_one_entry(self, remote: Overrides) -> None:
        assert set(remote.get()) == set(OPTIONS)
        assert remote.get("log_level") == "warning"
        assert remote.get("dev_name") == {"left": "5", "right": "6"}
        assert remote.get("dev_name.left") == "5"
        assert remote.get("exec_timeout..*_main") == 0.05
        assert list(remote.get("dev_ports")) == ["/dev/ttyACM*"]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("dev_nam", "unknown option 'dev_nam'; did you mean dev_name?"),
            ("dev_name.lfet", "dev_name has no entry 'lfet'; did you mean left?"),
            ("log_level.x", "unknown option 'log_level.x'; did you mean log_level?"),
        ],
    )
    def test_unknown_name_is_reported_with_the_nearest(
        self, remote: Overrides, name: str, message: str
    ) -> None:
        with pytest.raises(ConfigError) as raised:
            remote.get(name)
        assert raised.value.message == message


class TestSet:
    def test_change_takes_effect_at_the_next_start(self, remote: Overrides, tmp_path: Path) -> None:
        assert remote.set({"dev_poll_interval": 0.05, "dev_name": {"arm": "7"}}) == {
            "dev_poll_interval": 0.05,
            "dev_name": {"arm": "7"},
        }
        assert remote.get("dev_poll_interval") == 0.04
        loaded = config.load(
            env={"STATE_DIRECTORY": str(tmp_path)}, cwd=tmp_path, flags={"instance": "state"}
        )
        assert (loaded.config.dev_poll_interval, loaded.config.dev_name) == (0.05, {"arm": "7"})

    def test_later_calls_add_and_replace(self, remote: Overrides) -> None:
        remote.set({"log_level": "debug", "dev_name": {"arm": "7"}})
        remote.set({"log_level": "info", "dev_name": {"leg": "8"}})
        assert remote.set({}) == {"log_level": "info", "dev_name": {"arm": "7", "leg": "8"}}

    def test_null_removes_an_override_or_an_entry(self, remote: Overrides, tmp_path: Path) -> None:
        remote.set({"log_level": "debug", "dev_name": {"arm": "7", "leg": "8"}})
        assert remote.set({"log_level": None, "dev_name": {"arm": None}}) == {
            "dev_name": {"leg": "8"}
        }
        assert remote.set({"dev_name": {"leg": None, "absent": None}}) == {}
        assert not (tmp_path / "state" / overrides.FILE_NAME).exists()

    def test_all_or_none(self, remote: Overrides) -> None:
        remote.set({"debug": True})
        assert "log_level = 'loud'" in refusal(
            remote, debug=False, dev_poll_interval=0.1, log_level="loud"
        )
        assert remote.set({}) == {"debug": True}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"dev_poll_intervall": 1},
                "set_option: unknown option 'dev_poll_intervall'; did you mean dev_poll_interval?",
            ),
            ({"dev_poll_intervall": None}, "set_option: unknown option"),
            (
                {"dev_poll_interval": 5},
                "set_option: dev_poll_interval = 5 is not a number from 0.001 to 1 (s)",
            ),
            ({"dev_poll_interval": "0.1"}, "; write it without quotes"),
            ({"dev_poll_interval": float("nan")}, "dev_poll_interval = nan is not a number"),
            ({"debug": 1}, "set_option: debug = 1 is not true or false"),
            ({"log_level": "warn"}, "; did you mean warning?"),
            ({"dev_name": {"arm": "x"}}, "set_option: dev_name.arm = 'x' is not a UID"),
            (
                {"dev_name": ["arm:7"]},
                "set_option: dev_name must be a map of the entries to change, such as",
            ),
            (
                {"dev_poll_interval": {}},
                "set_option: dev_poll_interval = {} is not a number from 0.001 to 1 (s)",
            ),
            ({"log_level": {"root": None}}, "log_level"),
            ({"exec_module": {}}, "exec_module"),
            ({"exec_timeout": {"(": 1.0}}, "not a regular expression"),
            ({"exec_timeout": {"a{99999999999}": 1.0}}, "not a regular expression"),
            ({"exec_timeout": {"(" * 120 + ")" * 120: 1.0, "(": 1.0}}, "not a regular expression"),
            ({"exec_timeout": {"(" * 4000: 1.0}}, "has 4000 characters; at most 256 are allowed"),
            ({"exec_timeout": {"a" * 257: 1.0}}, "has 257 characters; at most 256 are allowed"),
            (
                {"exec_timeout": {f"f{number}": 1.0 for number in range(33)}},
                "would have 33 entries, but at most 32",
            ),
            (
                {"dev_name": {f"m{number}": str(number + 7) for number in range(257)}},
                "would have 257 entries",
            ),
            ({"dev_name": {"arm": "5"}}, "set_option: dev_name gives left and arm the same UID 5"),
            (
                {"instance": "x"},
                "set_option: instance cannot be set remotely, because the overrides belong to this",
            ),
            (
                {"bind": "0.0.0.0"},
                "bind cannot be set remotely, because it decides who reaches the robot; set it",
            ),
            ({"router_frontend": ["tcp://0.0.0.0:1"]}, "cannot be set remotely"),
            ({"dev_ports": ["/dev/*"]}, "because it names files of the robot's computer"),
            ({"service_option": {"CURVE_SERVER": 0}}, "because it could disable the security"),
            ({"bind": None}, "bind cannot be set remotely"),
            ({"dev_name": {" ": "7"}}, "set_option: invalid device name ' '"),
            (
                {"dev_name": {"arm": "7", "leg": "7"}},
                "set_option: dev_name gives arm and leg the same UID 7",
            ),
            ({"exec_module": "../other.py"}, "because it is outside of"),
            ({"exec_module": "/etc/passwd"}, "because it is outside of"),
            ({"exec_module": ".."}, "because it is outside of"),
            ({"exec_module": "x\0.py"}, "is not a path"),
            (
                {"dev_catalog": "/etc/catalog.toml"},
                "because it names files of the robot's computer",
            ),
            ({"dev_catalog": "keys/robot.key"}, "because it names files of the robot's computer"),
            ({"log_file": "keys/robot.key"}, "because it names files of the robot's computer"),
            ({"log_format": "pretty"}, "because it decides what is seen of the log"),
            ({"log_level": "critical"}, "because it would hide events; use debug or info"),
            ({"log_level": "warning"}, "because it would hide events"),
            ({"exec_module": "keys/robot.key"}, "because it is a key file"),
            ({"exec_module": "keys/../keys/robot.key"}, "because it is a key file"),
            ({"exec_module": "blue.rtkey"}, "because it is a key file"),
            (
                {"exec_module": "notes/passwords.txt"},
                "because it is neither a module name nor a .py file",
            ),
            (
                {"exec_module": "$(cat blue.rtkey).txt"},
                "because it is neither a module name nor a .py file",
            ),
        ],
    )
    def test_bad_change_is_refused_with_the_reason(
        self, remote: Overrides, options: dict[str, object], message: str
    ) -> None:
        assert message in refusal(remote, **options)
        assert remote.set({}) == {}

    def test_link_does_not_lead_out_of_the_project(self, remote: Overrides, tmp_path: Path) -> None:
        (tmp_path / "team" / "link").symlink_to("/etc")
        assert "is outside of" in refusal(remote, exec_module="link/passwd.py")

    def test_code_in_the_project_is_accepted(self, remote: Overrides) -> None:
        assert remote.set({"exec_module": "robots/second.py"}) == {
            "exec_module": "robots/second.py"
        }
        assert remote.set({"exec_module": "robots.third"})["exec_module"] == "robots.third"

    @pytest.mark.parametrize("name", ["keys/robot.key", "keys/blue.station", "blue.rtkey"])
    @pytest.mark.parametrize("option", ["dev_catalog", "exec_module", "log_file"])
    def test_no_error_quotes_a_key(
        self, remote: Overrides, tmp_path: Path, option: str, name: str
    ) -> None:
        ring = Keyring(tmp_path / "team" / "keys")
        station_key = ring.new("blue")
        station_key.write(tmp_path / "team" / "blue.rtkey")
        (tmp_path / "team" / "code.py").symlink_to(name)
        errors = refusal(remote, **{option: name})
        if option == "exec_module":
            errors += refusal(remote, exec_module="code.py")
        robot = ring.robot()
        for secret in (
            robot.secret,
            station_key.secret,
            station_key.datagram.secret.hex(),
            robot.public,
            station_key.public,
        ):
            assert secret not in errors
        assert remote.set({}) == {}

    def test_change_is_logged_as_a_warning_with_its_caller(self, remote: Overrides) -> None:
        with structlog.testing.capture_logs() as logs:
            remote._log = structlog.get_logger()
            context = copy_context()
            context.run(set_caller, Caller(b"blue/panel", is_routed=True))
            context.run(remote.set, {"log_level": "info"})
        (event,) = logs
        assert (event["by"], event["options"], event["log_level"]) == (
            "blue",
            ["log_level"],
            "warning",
        )

    def test_name_may_move_from_one_device_to_another(self, remote: Overrides) -> None:
        Overrides(CONFIG, remote._state, remote._directory).set({"dev_name": {"arm": "9"}})
        assert remote.set({"dev_name": {"arm": None, "leg": "9"}}) == {"dev_name": {"leg": "9"}}

    def test_option_set_at_the_robot_is_not_removed_remotely(
        self, remote: Overrides, tmp_path: Path
    ) -> None:
        overrides.write(tmp_path / "state", {"insecure": False, "debug": True})
        assert "insecure cannot be set remotely" in refusal(remote, insecure=None)
        assert remote.set({"debug": None}) == {"insecure": False}

    def test_overrides_too_long_for_the_next_start_are_refused(
        self, remote: Overrides, tmp_path: Path
    ) -> None:
        remote.set({"debug": True})
        assert "would be longer than 256 KiB" in refusal(
            remote, exec_module="x" * overrides.MAX_BYTES
        )
        assert overrides.read(tmp_path / "state") == {"debug": True}

    def test_limit_of_entries_holds_for_all_calls_together(self, remote: Overrides) -> None:
        names = {f"m{number}": str(number + 7) for number in range(256)}
        assert len(remote.set({"dev_name": names})["dev_name"]) == 256
        assert "would have 257 entries, but at most 256 can be set remotely" in refusal(
            remote, dev_name={"arm": "9999"}
        )
        assert len(remote.set({"dev_name": {"m0": None, "arm": "9999"}})["dev_name"]) == 256

    def test_entries_set_at_the_robot_can_be_removed(
        self, remote: Overrides, tmp_path: Path
    ) -> None:
        overrides.write(
            tmp_path / "state",
            {"dev_name": {f"m{number}": str(number + 7) for number in range(300)}},
        )
        assert "would have 301 entries" in refusal(remote, dev_name={"arm": "9999"})
        assert len(remote.set({"dev_name": {"m0": None}})["dev_name"]) == 299
        assert remote.set({"dev_name": None}) == {}

    def test_damaged_file_is_reported_and_not_changed(
        self, remote: Overrides, tmp_path: Path
    ) -> None:
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / overrides.FILE_NAME).write_text("{")
        assert "remove it to start without the options" in refusal(remote, debug=True)

    def test_every_option_is_allowed_or_refused_for_a_reason(self) -> None:
        assert set(OPTIONS) >= ALLOWED
        assert ALLOWED.isdisjoint(REASONS)
        silent = [
            option.name
            for option in OPTIONS.values()
            if option.name not in ALLOWED
            and option.name not in REASONS
            and option.group != "Network"
        ]
        assert silent == []

    @pytest.mark.parametrize(
        "options",
        [
            {"exec_timeout": {"autonomous_main": 30}},
            {"exec_timeout": {".*": 3600}},
            {"exec_timeout": {".*_main": None}},
            {"exec_timeout": {}},
            {"exec_timeout": None},
            {"debug": True, "exec_timeout": {".*_main": 0.01}},
            {"exec_cutoffs": 1000},
            {"exec_cutoffs": None},
            {"teleop_needs_gamepad": False},
            {"teleop_needs_gamepad": None},
            {"dev_poll_interval": 1},
            {"dev_poll_interval": 0.11},
        ],
    )
    def test_no_station_decides_when_devices_stop(
        self, remote: Overrides, tmp_path: Path, options: dict[str, object]
    ) -> None:
        before: overrides.OptionValues = {"exec_timeout": {".*_main": 0.02}}
        overrides.write(tmp_path / "state", before)
        assert "because it decides when devices stop" in as_(
            b"blue/panel", refusal, remote, **options
        )
        assert overrides.read(tmp_path / "state") == before

    def test_user_of_the_robot_may_extend_time_limits(self, remote: Overrides) -> None:
        limits = {"exec_timeout": {".*_main": 0.1}, "dev_poll_interval": 0.5}
        assert as_(b"client-7", remote.set, limits) == limits
        assert (
            as_(b"blue/panel", remote.set, {"dev_poll_interval": 0.1})["dev_poll_interval"] == 0.1
        )

    def test_every_caller_of_an_insecure_robot_counts_as_a_station(self, tmp_path: Path) -> None:
        options = Config(insecure=True, bind="0.0.0.0").resolved(tmp_path)
        remote = Overrides(options, tmp_path / "state", tmp_path)
        assert "cannot be set by a station" in as_(
            b"client-7", refusal, remote, exec_timeout={".*_main": 30}
        )

    @given(options=st.dictionaries(st.sampled_from([*OPTIONS, "x"]), VALUES))
    def test_any_change_is_applied_completely_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, options: dict[str, object]
    ) -> None:
        folder = tmp_path_factory.mktemp("robot")
        remote = Overrides(CONFIG, folder / "state", folder)
        try:
            now = remote.set(options)
        except ConfigError:
            assert overrides.read(folder / "state") == {}
        else:
            assert overrides.read(folder / "state") == now
            config.load(
                env={"STATE_DIRECTORY": str(folder)}, cwd=folder, flags={"instance": "state"}
            )
