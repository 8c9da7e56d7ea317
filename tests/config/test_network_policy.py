"""Which robots may start: those that strangers cannot drive."""

from pathlib import Path

import msgspec
import pytest

from rt.config import Config
from rt.config.network import is_open, open_listeners, require_keys
from rt.errors import ConfigError


def resolved(**options: object) -> Config:
    return msgspec.structs.replace(Config(), **options).resolved(Path("/run/rt/x"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_the_loopback_interface_is_this_machines_own(host: str) -> None:
    assert not is_open(f"tcp://{host}:6000")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "*", "[::]", "10.0.0.1", "robot", "localhost.example.org", "lo", ""]
)
def test_whatever_else_counts_as_the_network(host: str) -> None:
    assert is_open(f"udp://{host}:6000")


def test_by_default_nothing_is_open() -> None:
    assert open_listeners(resolved()) == []
    require_keys(resolved(), [])


def test_bind_opens_what_knows_keys_and_nothing_else() -> None:
    assert [option for option, _ in open_listeners(resolved(bind="0.0.0.0"))] == [
        "router_frontend",
        "log_frontend",
        "control_addr",
    ]


def test_a_robot_without_keys_is_refused_with_both_remedies() -> None:
    with pytest.raises(ConfigError, match=r"rt keys new NAME.*--insecure") as caught:
        require_keys(resolved(bind="10.0.0.1"), [])
    assert caught.value.EXIT_CODE == 78
    require_keys(resolved(bind="10.0.0.1"), ["blue"])
    require_keys(resolved(bind="10.0.0.1", insecure=True), [])


@pytest.mark.parametrize(
    "option", [{"dev_vsd_addr": "tcp://{bind}:{port4}"}, {"router_backend": ("tcp://{bind}:7000",)}]
)
def test_what_knows_no_keys_stays_at_home(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(option))} = .* no key can protect it"):
        require_keys(
            resolved(bind="0.0.0.0", log_frontend=(), router_frontend=(), **option), ["blue"]
        )
    require_keys(resolved(bind="0.0.0.0", insecure=True, **option), [])
