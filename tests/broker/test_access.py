"""Reports of who may reach the robot from the network."""

from pathlib import Path

import msgspec
import pytest
import structlog
import trio
import zmq

from rt.access.authenticator import Authenticator
from rt.access.keyring import Keyring
from rt.broker import Access
from rt.config import Config
from rt.remote import DatagramNode, Handler, Service
from rt.remote.signed_node import VerifyingNode


def made(tmp_path: Path, **options: object) -> tuple[Access, list[structlog.typing.EventDict]]:
    """Return the access of a robot with some options, and its log events at the start."""
    config = msgspec.structs.replace(Config(), **options).resolved(tmp_path)
    authenticator = Authenticator(
        Keyring(tmp_path / "keys"), insecure=config.insecure, context=zmq.Context.instance()
    )
    with structlog.testing.capture_logs() as logs:
        access = Access(config, authenticator)
        access._log = structlog.get_logger()
        access.announce()
    return access, logs


async def test_local_robot_logs_nothing(tmp_path: Path) -> None:
    access, logs = made(tmp_path)
    assert logs == []
    assert access.report().network == []


@pytest.mark.parametrize(
    ("options", "leaves"),
    [
        ({"bind": "0.0.0.0"}, True),
        ({"bind": "127.0.0.2"}, False),
        ({"update_addr": "udp://10.0.0.7:6003"}, True),
        ({"update_addr": "udp://localhost:6003", "bind": "0.0.0.0"}, False),
    ],
)
async def test_updates_that_leave_the_machine_are_logged(
    tmp_path: Path, options: dict[str, str], leaves: bool
) -> None:
    _, logs = made(tmp_path, **options)
    assert any(entry["event"] == "device updates sent to the network" for entry in logs) == leaves


async def test_insecure_robot_warns(tmp_path: Path) -> None:
    access, logs = made(tmp_path, bind="0.0.0.0", insecure=True)
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "robot open to the network without keys (insecure)"
    ]
    assert access.report().insecure


async def test_report_counts_datagrams(tmp_path: Path) -> None:
    Keyring(tmp_path / "keys").new("blue")
    access, logs = made(tmp_path, bind="0.0.0.0")
    assert [entry["stations"] for entry in logs if "stations" in entry] == [["blue"]]
    assert access.report().datagrams == {}
    node = VerifyingNode("127.0.0.1", 0, access._authenticator.keyring, required=True)
    service = Service(node, Handler())
    access.watch(service)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            async with DatagramNode("127.0.0.1", node.port, bind=False) as air:
                await air.send(b"", b"plain")
                while not access.report().datagrams["unsigned"]:  # noqa: ASYNC110 - a counter
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert access.report().stations == ["blue"]
