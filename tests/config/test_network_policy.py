"""Network policy: a robot that strangers could drive does not start."""

from pathlib import Path

import msgspec
import pytest

from rt.config import Config
from rt.config.network import is_open, open_listeners, require_keys
from rt.errors import ConfigError


def resolved(**options: object) -> Config:
    return msgspec.structs.replace(Config(), **options).resolved(Path("/run/rt/x"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_loopback_addresses_are_local(host: str) -> None:
    assert not is_open(f"tcp://{host}:6000")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "*", "[::]", "10.0.0.1", "robot", "localhost.example.org", "lo", ""]
)
def test_other_addresses_are_open_to_the_network(host: str) -> None:
    assert is_open(f"udp://{host}:6000")


def test_no_listener_is_open_by_default() -> None:
    assert open_listeners(resolved()) == []
    require_keys(resolved(), [])


def test_bind_opens_only_listeners_with_keys() -> None:
    assert [option for option, _ in open_listeners(resolved(bind="0.0.0.0"))] == [
        "router_frontend",
        "log_frontend",
        "control_addr",
    ]


def test_open_robot_without_keys_is_refused_with_both_remedies() -> None:
    with pytest.raises(ConfigError, match=r"rt keys new NAME.*--insecure") as caught:
        require_keys(resolved(bind="10.0.0.1"), [])
    assert caught.value.EXIT_CODE == 78
    require_keys(resolved(bind="10.0.0.1"), ["blue"])
    require_keys(resolved(bind="10.0.0.1", insecure=True), [])


@pytest.mark.parametrize(
    "option", [{"dev_vsd_addr": "tcp://{bind}:{port4}"}, {"router_backend": ("tcp://{bind}:7000",)}]
)
def test_listener_without_keys_must_be_local(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(option))} = .* keys cannot protect it"):
        require_keys(
            resolved(bind="0.0.0.0", log_frontend=(), router_frontend=(), **option), ["blue"]
        )
    require_keys(resolved(bind="0.0.0.0", insecure=True, **option), [])
