"""Loading of the options from all sources, and the messages about errors in them."""

import itertools
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt import config
from rt.config import toml
from rt.errors import ConfigError


def load(tmp_path: Path, text: str | None = None, **sources: object) -> config.Loaded:
    if text is not None:
        (tmp_path / "rt.toml").write_text(text)
    return config.load(**{"env": {}, "cwd": tmp_path, **sources})  # type: ignore[arg-type]


def refusal(tmp_path: Path, text: str | None = None, **sources: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **sources)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.EXIT_CODE == 78
    return message


class TestLayers:
    def test_without_sources_every_option_has_its_default(self, tmp_path: Path) -> None:
        loaded = load(tmp_path)
        assert loaded.config == config.Config()
        assert set(loaded.origins.values()) == {"default"}
        assert loaded.file is None

    def test_file_overrides_the_default(self, tmp_path: Path) -> None:
        loaded = load(tmp_path, "\n\nport_base = 7000\n")
        assert loaded.config.port_base == 7000
        assert loaded.origins["port_base"] == "rt.toml:3"
        assert loaded.file == tmp_path / "rt.toml"

    def test_variable_overrides_the_file_and_flag_overrides_both(self, tmp_path: Path) -> None:
        text, env = "port_base = 7000", {"RT_PORT_BASE": "7100"}
        loaded = load(tmp_path, text, env=env)
        assert (loaded.config.port_base, loaded.origins["port_base"]) == (7100, "RT_PORT_BASE")
        loaded = load(tmp_path, text, env=env, flags={"port_base": "7200"})
        assert (loaded.config.port_base, loaded.origins["port_base"]) == (7200, "--port-base")

    def test_flag_that_was_not_given_is_ignored(self, tmp_path: Path) -> None:
        loaded = load(tmp_path, flags={"port_base": None, "dev_ports": (), "debug": None})
        assert set(loaded.origins.values()) == {"default"}

    def test_switches_have_an_off_flag(self, tmp_path: Path) -> None:
        loaded = load(tmp_path, "debug = true", flags={"debug": False})
        assert not loaded.config.debug
        assert loaded.origins["debug"] == "--no-debug"

    def test_every_source_accepts_every_option(self, tmp_path: Path) -> None:
        for option in config.OPTIONS.values():
            default = option.default
            if isinstance(default, dict):
                default = [f"{key}:{value}" for key, value in default.items()]
            values = (
                [str(each) for each in default]
                if isinstance(default, list | tuple)
                else str(default)
            )
            joined = values if isinstance(values, str) else ",".join(values)
            assert load(tmp_path, env={option.env: joined}).config == config.Config(), option.name
            assert load(tmp_path, flags={option.name: values or None}).config == config.Config(), (
                option.name
            )

    def test_list_can_be_empty(self, tmp_path: Path) -> None:
        settings = load(tmp_path, "dev_usb_ids = []", env={"RT_DEV_PORTS": ""}).config
        assert (settings.dev_usb_ids, settings.dev_ports) == ((), ())

    def test_list_in_a_variable_is_separated_by_commas(self, tmp_path: Path) -> None:
        settings = load(tmp_path, env={"RT_DEV_USB_IDS": "2341:8037, 1A86:7523"}).config
        assert settings.dev_usb_ids == ("2341:8037", "1A86:7523")


class TestMaps:
    def test_table_names_devices(self, tmp_path: Path) -> None:
        loaded = load(tmp_path, '[dev_name]\nleft = "12"\nright = 56668397794435742564352\n')
        assert loaded.config.dev_name == {"left": "12", "right": "56668397794435742564352"}
        assert loaded.origins["dev_name"] == "rt.toml:1"

    def test_variables_and_flags_give_pairs(self, tmp_path: Path) -> None:
        loaded = load(
            tmp_path, env={"RT_DEV_NAME": "left:1, right:2\narm:3"}, flags={"dev_name": ("left:9",)}
        )
        assert loaded.config.dev_name == {"right": "2", "arm": "3", "left": "9"}
        assert loaded.origins["dev_name"] == "RT_DEV_NAME, --dev-name"

    def test_pattern_may_contain_commas_and_colons(self, tmp_path: Path) -> None:
        loaded = load(tmp_path, env={"RT_EXEC_TIMEOUT": "a{1,2}:3,(?:teleop|auto)_main:0.02"})
        assert loaded.config.time_limit("aa") == 3
        assert loaded.config.time_limit("auto_main") == 0.02

    def test_entries_are_merged_with_defaults_and_the_last_match_counts(
        self, tmp_path: Path
    ) -> None:
        settings = load(tmp_path, "[exec_timeout]\nteleop_main = 0.01\n'spin|turn' = 2\n").config
        assert settings.time_limit("teleop_main") == 0.01
        assert settings.time_limit("auto_main") == 0.05
        assert settings.time_limit("auto_setup") == 1
        assert settings.time_limit("turn") == 2
        assert settings.time_limit("turning") is None

    def test_repeated_entry_counts_as_the_last(self, tmp_path: Path) -> None:
        settings = load(tmp_path, flags={"exec_timeout": ("a_main:7", ".*_main:0.03")}).config
        assert settings.time_limit("a_main") == 0.03


class TestErrors:
    def test_unknown_key_names_its_line_and_the_nearest(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, "# ports\nport_bsae = 7000\n")
        assert message == "rt.toml:2: unknown option 'port_bsae'; did you mean port_base?"

    def test_value_out_of_bounds_names_the_bounds(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, "port_base = 80")
        assert message == "rt.toml:1: port_base = 80 is not a whole number from 1024 to 65531"

    def test_wrong_choice_names_all_choices_and_the_nearest(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, env={"RT_LOG_LEVEL": "warn"})
        assert message == (
            "RT_LOG_LEVEL: log_level = 'warn' is not one of debug, info, warning, error, critical;"
            " did you mean warning?"
        )

    def test_error_names_the_flag_as_it_was_written(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, flags={"dev_baud_rate": "fast"})
        assert message == (
            "--dev-baud-rate: dev_baud_rate = 'fast' is not a whole number from 50 to 4000000"
            " (baud)"
        )

    def test_unknown_rt_variable_is_refused_and_others_are_ignored(self, tmp_path: Path) -> None:
        assert (
            refusal(tmp_path, env={"RT_PORTBASE": "1"})
            == "RT_PORTBASE: unknown variable; did you mean RT_PORT_BASE?"
        )
        load(
            tmp_path,
            env={
                "RT_BINARY": "dist/rt",
                "RT_INSTANCE_DIR": "/tmp/x",
                "RT_CHILD": "1f",
                "PATH": "",
                "RTFM": "1",
            },
        )

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                '[dev_name]\na = "1"\n\n[dev_name]\nb = "2"',
                "4: [dev_name] is defined twice (lines 1 and 4); merge the two tables",
            ),
            (
                '[dev_name]\na = "1"\na = "2"',
                "3: a is defined twice (lines 2 and 3); remove one of them",
            ),
            (
                "debug = true\nport_base = 7000\ndebug = false",
                "3: debug is defined twice (lines 1 and 3); remove one",
            ),
            ("teleop_needs_gamepad = False", "1: False is not a value; write false in lower case"),
            ("debug = TRUE # why", "1: TRUE is not a value; write true in lower case"),
            ("exec_module = foo.py", '1: text needs quotes; write exec_module = "foo.py"'),
            (
                "exec_module = /home/robot/foo.py",
                '1: text needs quotes; write exec_module = "/home/robot/foo.py"',
            ),
            ("port_base =", "1: the value of port_base is missing"),
            (
                '[dev_name]\nleft motor = "33"',
                '2: a name with a space needs quotes; write "left motor" = ..., or left_motor',
            ),
            (
                '[dev_name]\nmotor!= "33"',
                "2: a name with characters other than letters, digits, _ and - needs quotes; write",
            ),
            ("debug: true", "1: write = instead of :"),
            ("debug", "1: = and a value are missing after the name"),
            ('exec_module = "foo', "1: the closing quote is missing"),
            (
                "bind = 127.0.0.1",
                '1: only one value may follow bind =; if it is text, write bind = "127.0.0.1"',
            ),
        ],
    )
    def test_syntax_error_is_reported_with_a_remedy(
        self, tmp_path: Path, text: str, expected: str
    ) -> None:
        message = refusal(tmp_path, text)
        place, _, reason = expected.partition(": ")
        assert re.sub(r"^(rt\.toml:\d+):\d+: ", r"\1: ", message).startswith(
            f"rt.toml:{place}: {reason}"
        )

    def test_two_names_of_one_device_are_refused(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, '[dev_name]\nleft = "1"\nright = "2"\narm = "1"\n')
        assert message.startswith("rt.toml:4: dev_name gives left and arm the same UID 1")

    def test_bad_entry_of_a_table_names_its_line(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, '[dev_name]\nleft = "1"\nright = "two"\n')
        assert message == (
            "rt.toml:3: dev_name.right = 'two' is not a UID, which is a number of at most 27"
            " digits; `rt devices` shows the UIDs of devices"
        )
        message = refusal(tmp_path, f'[dev_name]\nright = "{1 << 88}"\n')
        assert message.startswith("rt.toml:2: dev_name.right = ")
        assert "is too large for a UID" in message

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "update_interval = nan",
                "rt.toml:1: update_interval = nan is not a number from 0.01 to 60 (s)",
            ),
            ("update_interval = inf", "is not a number"),
            ('dev_baud_rate = "9600"', "is not a whole number"),
            ("debug = 1", "rt.toml:1: debug = 1 is not true or false"),
            ('instance = "../x"', "is not 1 to 32 of A-Z a-z 0-9"),
            ('router_frontend = ["http://x"]', "tcp://HOST:PORT or ipc://PATH"),
            ('control_addr = "tcp://127.0.0.1:1"', "is not udp://HOST:PORT"),
            (
                'control_addr = "udp://{host}:{port2}"',
                "rt.toml:1: control_addr: unknown placeholder in 'udp://{host}:{port2}'",
            ),
            (
                'log_frontend = "tcp://127.0.0.1:99999"',
                "rt.toml:1: log_frontend: 'tcp://127.0.0.1:99999' does not end in a port",
            ),
            ('exec_timeout = ["(:1"]', "is not a regular expression"),
            ('dev_name = "left"', "is not a table; write a line [dev_name]"),
            ("dev_name = 3", "is not a table; write a line [dev_name]"),
            ("[exec_timeout]\na = 0", "rt.toml:2: exec_timeout.a = 0 is not seconds"),
            ("[component.blinker]\nmode = 1", "rt.toml:1: [component] tables are not supported"),
            (
                "[dev_name]\nport_base = 7000",
                "rt.toml:2: port_base is an option, but is below [dev_name]; move it above",
            ),
            ("left = '56668397794435742564353'", "put device names into the table [dev_name]"),
            ("[dev_name]\na = '5'\nb = 5", "rt.toml:3: dev_name gives a and b the same UID 5"),
            ('port_base = "7000"', "write it without quotes"),
            (
                'dev_usb_ids = ["2341"]',
                "each entry is VENDOR:PRODUCT of four hexadecimal digits each",
            ),
            ('dev_usb_ids = ["2341:803g"]', "each entry is VENDOR:PRODUCT"),
            (
                'dev_ports = ["ttyACM*"]',
                "each entry is a glob of absolute paths, such as /dev/ttyACM*",
            ),
            ('dev_ports_denied = [""]', "each entry is a glob of absolute paths"),
            ('bind = "[::1]"', "is not a host name or an IPv4 address"),
            ("[robot]\nx = 1", "rt.toml:1: unknown option 'robot'"),
        ],
    )
    def test_bad_value_is_refused_in_one_line(
        self, tmp_path: Path, text: str, expected: str
    ) -> None:
        assert expected in refusal(tmp_path, text)

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("a = 1\nb = = 2\n", "rt.toml:2:5: "),
            ("a = [1,\n", "rt.toml:1:8: "),
            ("x", "rt.toml:1:2: "),
        ],
    )
    def test_syntax_error_names_line_and_column(
        self, tmp_path: Path, text: str, place: str
    ) -> None:
        assert refusal(tmp_path, text).startswith(place)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (f"port_base = {'9' * 5000}", "a number has too many digits"),
            (f"dev_ports = {'[' * 5000}", "brackets are nested too deeply"),
        ],
        ids=["digits", "brackets"],
    )
    def test_file_that_cannot_be_parsed_is_refused(
        self, tmp_path: Path, text: str, reason: str
    ) -> None:
        assert refusal(tmp_path, text) == f"rt.toml: {reason}"

    def test_file_that_is_not_utf8_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "rt.toml").write_bytes(b"a = 1\nb = '\xff'\n")
        assert refusal(tmp_path) == "rt.toml:2: not UTF-8 text"


class TestFile:
    def test_named_file_replaces_rt_toml(self, tmp_path: Path) -> None:
        (tmp_path / "other.toml").write_text("port_base = 7300")
        loaded = load(tmp_path, "port_base = 7000", env={"RT_CONFIG": "other.toml"})
        assert loaded.origins["port_base"] == "other.toml:1"
        loaded = load(tmp_path, env={"RT_CONFIG": "absent.toml"}, file=tmp_path / "other.toml")
        assert loaded.config.port_base == 7300

    def test_named_file_must_exist(self, tmp_path: Path) -> None:
        assert (
            refusal(tmp_path, env={"RT_CONFIG": "absent.toml"})
            == "RT_CONFIG: file 'absent.toml' does not exist"
        )
        assert (
            refusal(tmp_path, file=Path("absent.toml"))
            == "--config: file 'absent.toml' does not exist"
        )

    def test_relative_paths_are_relative_to_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "robot").mkdir()
        (tmp_path / "robot" / "rt.toml").write_text(
            'dev_catalog = "mine.toml"\nexec_module = "robot.drive"\n'
        )
        settings = load(tmp_path, file=Path("robot/rt.toml")).config
        assert settings.dev_catalog == str(tmp_path / "robot" / "mine.toml")
        assert settings.exec_module == "robot.drive"


class TestAddresses:
    def test_all_ports_move_together(self) -> None:
        settings = config.Config(port_base=7000, bind="0.0.0.0").resolved(Path("/run/rt/default"))
        assert settings.router_frontend == (
            "tcp://0.0.0.0:7000",
            "ipc:///run/rt/default/router-frontend.sock",
        )
        assert settings.log_frontend == (
            "tcp://0.0.0.0:7001",
            "ipc:///run/rt/default/log-frontend.sock",
        )
        assert settings.control_addr == "udp://0.0.0.0:7002"
        assert settings.update_addr == "udp://224.1.1.1:7003"
        assert settings.dev_vsd_addr == "tcp://127.0.0.1:7004"
        assert settings.resolved(Path("/elsewhere")) == settings

    def test_path_too_long_for_a_socket_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="longer than the 107 bytes"):
            config.Config().resolved(Path("/" + "x" * 100))


class TestPlaces:
    def test_keys_are_found_in_every_notation(self, tmp_path: Path) -> None:
        path = tmp_path / "rt.toml"
        path.write_text(
            'a = """\nb = 1\n"""\n"b" = 2\nt.x = 1\nt."y z" = 2\n'
            '[ u ] # t\n"k\\u0061" = { m = 1, n = 2 }\n[u.v]\nw = [\n  1,\n]\n'
        )
        document = toml.read(path, "rt.toml")
        for keys, line in {
            ("a",): 1,
            ("b",): 4,
            ("t",): 5,
            ("t", "y z"): 6,
            ("u",): 7,
            ("u", "ka"): 8,
            ("u", "ka", "n"): 8,
            ("u", "v", "w"): 10,
            ("u", "v", "absent"): 9,
        }.items():
            assert document.place(*keys) == f"rt.toml:{line}", keys

    @given(st.lists(st.text(string.ascii_lowercase, min_size=1), unique=True), st.data())
    def test_line_of_a_key_is_the_one_that_assigns_it(
        self, keys: list[str], data: st.DataObject
    ) -> None:
        blank = [data.draw(st.integers(0, 3)) for _ in keys]
        text = "".join("\n" * gap + f"{key} = 1\n" for key, gap in zip(keys, blank, strict=True))
        found = toml._places(text)
        lines = [
            total + number for number, total in enumerate(itertools.accumulate(blank), start=1)
        ]
        assert found == {(key,): line for key, line in zip(keys, lines, strict=True)}
