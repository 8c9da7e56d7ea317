"""Tests that docs/migration.md lists all public names of the older package correctly."""

import re
from pathlib import Path

import pytest
from support.names import find

MAP = Path(__file__).parents[1] / "docs" / "migration.md"

CALLS: dict[str, str] = {
    "remote.Client": "call issue_call",
    "remote.DatagramNode": "from_address host options",
    "remote.Handler": "",
    "remote.Node": "",
    "remote.Router": "bind",
    "remote.Service": "concurrency",
    "remote.SocketNode": "socket_type options bindings connections subscriptions",
    "EmergencyStopException": "EXIT_CODE",
}
"""The names for remote calls in the older package, and their public members."""

OLDER: dict[str, str] = CALLS | {
    "DeviceBufferError": "",
    "Buffer": "params get make_type open set transaction unlink write",
    "BufferStore": "catalog buffers stack shared get_or_open make_catalog",
    "DeviceBuffer": (
        "emit_dev_data emit_dev_rw emit_subscription get_read get_update get_write make_sub_res "
        "read update last_update last_write"
    ),
    "DeviceUID": "device_id year random from_int",
    "NullDevice": "",
    "Parameter": (
        "name ctype id lower upper readable writeable subscribed clamp parse_ctype default "
        "platform_type"
    ),
    "BaseStructure": "",
    "RuntimeBaseException": "",
    "SyncError": "",
    "DeviceError": "",
    "EventObserver": "devices context",
    "PollingObserver": "patterns interval ports",
    "SmartDeviceObserver": "",
    "SmartDevice": "heartbeat",
    "SmartDeviceClient": (
        "reader writer buffer requests read_queue write_queue discover read subscribe"
    ),
    "Broker": (
        "ctx update_publisher client buffers uids get_option lint set_option button_params "
        "update_gamepads"
    ),
    "SmartDeviceManager": (
        "buffers observer devices poll_interval discovery_timeout disable heartbeat "
        "open_serial_devices open_virtual_devices read run_device ping"
    ),
    "Application": (
        "name options stack endpoints logger configure_loop executor make_buffer_manager "
        "make_client make_control_client make_control_service make_log_forwarder "
        "make_log_publisher make_log_subscriber make_router make_service make_update_client "
        "make_update_service report_health"
    ),
    "AsyncProcess": "start exited",
    "AsyncProcessType": "pid returncode wait terminate kill",
    "run_process": "",
    "spin": "",
    "resolve_address": "",
    "get_connection": "",
}
"""The classes and exceptions of the older package, and their public members."""


def older_names() -> list[str]:
    return [
        *OLDER,
        *(f"{owner}.{member}" for owner, members in OLDER.items() for member in members.split()),
    ]


def table() -> dict[str, str]:
    """Return the table of docs/migration.md: older name -> name in rt."""
    section = MAP.read_text("utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| `(rt\.[^`]+)` \|[^|]*\|$", section, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "duplicate name"
    return dict(rows)


@pytest.mark.parametrize("name", older_names())
def test_older_name_is_in_the_table(name: str) -> None:
    assert name in table()


@pytest.mark.parametrize(("name", "path"), table().items())
def test_name_in_the_table_exists(name: str, path: str) -> None:
    assert find(path) is not None


@pytest.mark.parametrize(
    "path", ["rt.buffer.Bufer", "rt.bufer", "rt.buffer.Buffer.gett", "rt.buffer.BufferStore(share)"]
)
def test_unknown_name_is_an_error(path: str) -> None:
    with pytest.raises((AttributeError, ImportError, KeyError)):
        find(path)
