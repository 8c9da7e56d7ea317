"""All options of rt: names, types, defaults, bounds and meanings.

`Config` is the only definition. Validation, variables, flags, `rt config` and the commented rt.toml
of `rt init` are derived from it. The `Meta` of a type holds the bounds and, under `extra`, the
heading and the unit.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rt.errors import ConfigError

_IPC_PATH_BYTES = 107  # sockaddr_un.sun_path of Linux without its final zero byte
_ROBOT, _NETWORK, _DEVICES = "Robot", "Network", "Devices"
_CODE, _LOG, _CALLS = "Team code", "Log", "Calls"

ZmqAddress = Annotated[
    str, Meta(pattern=r"^(tcp|ipc)://.+$", description="an address: tcp://HOST:PORT or ipc://PATH")
]
SocketOption = Annotated[int, Meta(ge=-1, description="a whole number")]
Uid = Annotated[
    str,
    Meta(pattern=r"^[0-9]{1,27}\Z", description="a UID, which is a number of at most 27 digits"),
]
PortGlob = Annotated[
    str, Meta(pattern=r"^/.", description="a glob of absolute paths, such as /dev/ttyACM*")
]
UsbId = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}\Z",
        description="VENDOR:PRODUCT of four hexadecimal digits each, such as 2341:8037",
    ),
]
TimeLimit = Annotated[float, Meta(ge=0.001, le=3600, description="seconds, 0.001 to 3600")]


def _about(
    group: str,
    meaning: str,
    *,
    unit: str = "",
    allowed: str = "",
    is_path: bool = False,
    pattern: str | None = None,
    ge: float | None = None,
    le: float | None = None,
) -> Meta:
    extra = {"group": group, "unit": unit, "allowed": allowed, "is_path": is_path}
    if pattern is not None:
        return Meta(description=meaning, extra=extra, pattern=pattern)
    return Meta(description=meaning, extra=extra, ge=ge, le=le)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All options of one robot.

    Times are in seconds. An address may contain {bind}, {dir} and {port0} to {port4}.
    """

    instance: Annotated[
        str,
        _about(
            _ROBOT,
            "name of this robot, unique on its machine",
            pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}\Z",
            allowed="1 to 32 of A-Z a-z 0-9 _ . - without a leading dot",
        ),
    ] = "default"
    debug: Annotated[
        bool, _about(_ROBOT, "log tracebacks of errors, and the tasks that block the event loop")
    ] = False
    health_check_interval: Annotated[
        float,
        _about(_ROBOT, "time between two health reports in the log", unit="s", ge=0.1, le=86400),
    ] = 60.0

    bind: Annotated[
        str,
        _about(
            _NETWORK,
            "host or address of the TCP and UDP listeners; 0.0.0.0 admits stations with a key",
            pattern=r"^[A-Za-z0-9._-]+\Z",
            allowed="a host name or an IPv4 address, such as 127.0.0.1 or 0.0.0.0",
        ),
    ] = "127.0.0.1"
    keys_dir: Annotated[
        str,
        _about(
            _NETWORK,
            "directory of the keys, see `rt keys`; auto is a directory outside of the project",
            pattern=r"^.+$",
            allowed="auto, or a path",
            is_path=True,
        ),
    ] = "auto"
    insecure: Annotated[
        bool, _about(_NETWORK, "admit everybody without keys; matters only if bind opens the robot")
    ] = False
    port_base: Annotated[int, _about(_NETWORK, "first of the five ports", ge=1024, le=65531)] = 6000
    router_frontend: Annotated[
        tuple[ZmqAddress, ...], _about(_NETWORK, "addresses where clients call services")
    ] = ("tcp://{bind}:{port0}", "ipc://{dir}/router-frontend.sock")
    router_backend: Annotated[
        tuple[ZmqAddress, ...], _about(_NETWORK, "addresses where services wait for calls")
    ] = ("ipc://{dir}/router-backend.sock",)
    control_addr: Annotated[
        str,
        _about(
            _NETWORK,
            "address to which the driver's station sends gamepads",
            pattern=r"^udp://.+:.+$",
            allowed="udp://HOST:PORT",
        ),
    ] = "udp://{bind}:{port2}"
    update_addr: Annotated[
        str,
        _about(
            _NETWORK,
            "multicast group to which device updates are sent",
            pattern=r"^udp://.+:.+$",
            allowed="udp://HOST:PORT",
        ),
    ] = "udp://224.1.1.1:{port3}"
    update_interval: Annotated[
        float, _about(_NETWORK, "time between two device updates", unit="s", ge=0.01, le=60)
    ] = 0.1

    dev_catalog: Annotated[
        str, _about(_DEVICES, "catalog file; empty for the built-in catalog", is_path=True)
    ] = ""
    dev_name: Annotated[
        dict[str, Uid], _about(_DEVICES, "names of devices, each with its UID")
    ] = {}
    dev_ports: Annotated[
        tuple[PortGlob, ...], _about(_DEVICES, "serial ports of Smart Devices, by name")
    ] = ("/dev/ttyACM*",)
    dev_usb_ids: Annotated[
        tuple[UsbId, ...],
        _about(_DEVICES, "USB devices whose serial ports are used too, whatever their names are"),
    ] = ("2341:8037",)
    dev_ports_denied: Annotated[
        tuple[PortGlob, ...],
        _about(_DEVICES, "serial ports that are never opened; overrides the two options above"),
    ] = ()
    dev_baud_rate: Annotated[
        int, _about(_DEVICES, "serial speed", unit="baud", ge=50, le=4_000_000)
    ] = 115200
    dev_poll_interval: Annotated[
        float,
        _about(_DEVICES, "least time between two writes to a device", unit="s", ge=0.001, le=1),
    ] = 0.04
    dev_vsd_addr: Annotated[
        str,
        _about(
            _DEVICES,
            "address to which virtual Smart Devices connect",
            pattern=r"^tcp://.+:.+$",
            allowed="tcp://HOST:PORT",
        ),
    ] = "tcp://127.0.0.1:{port4}"

    exec_module: Annotated[
        str,
        _about(
            _CODE,
            "module or file of the team code",
            pattern=r"^.+$",
            allowed="a module's name or a path",
            is_path=True,
        ),
    ] = "studentcode"
    exec_timeout: Annotated[
        dict[str, TimeLimit],
        _about(
            _CODE,
            "time limit of each function (of a main: its period) by name pattern; last match wins",
        ),
    ] = msgspec.field(default_factory=lambda: {".*_setup": 1.0, ".*_main": 0.05})
    exec_cutoffs: Annotated[
        int,
        _about(
            _CODE,
            "cut-offs of late or failing code from the devices within 10 s that end its mode",
            ge=1,
            le=1000,
        ),
    ] = 5
    teleop_needs_gamepad: Annotated[
        bool,
        _about(
            _CODE,
            "in teleop, nothing moves before the sticks were at rest or while gamepads are silent",
        ),
    ] = True
    thread_pool_workers: Annotated[
        int, _about(_CODE, "threads for code that blocks", ge=1, le=64)
    ] = 1

    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        _about(_LOG, "least severity that is shown"),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "pretty"],
        _about(_LOG, "format on stdout; auto is pretty on a terminal, otherwise json"),
    ] = "auto"
    log_frontend: Annotated[
        tuple[ZmqAddress, ...], _about(_LOG, "addresses where the log is published")
    ] = ("tcp://{bind}:{port1}", "ipc://{dir}/log-frontend.sock")
    log_backend: Annotated[
        tuple[ZmqAddress, ...], _about(_LOG, "addresses where other processes submit log events")
    ] = ("ipc://{dir}/log-backend.sock",)

    log_file: Annotated[
        str,
        _about(
            _LOG,
            "log file; auto is a file in the state directory, empty is no file",
            is_path=True,
            allowed="auto, a path, or nothing",
        ),
    ] = "auto"
    log_file_size: Annotated[
        int,
        _about(
            _LOG,
            "size at which a new log file is started",
            unit="bytes",
            ge=100_000,
            le=1_000_000_000,
        ),
    ] = 5_000_000
    log_file_count: Annotated[
        int, _about(_LOG, "maximum number of log files, including the newest", ge=1, le=100)
    ] = 5

    service_workers: Annotated[
        int, _about(_CALLS, "concurrent calls of one service", ge=1, le=256)
    ] = 5
    client_option: Annotated[
        dict[str, SocketOption], _about(_CALLS, "ZMQ options of a client's socket")
    ] = msgspec.field(default_factory=lambda: {"SNDTIMEO": 1000})
    service_option: Annotated[
        dict[str, SocketOption], _about(_CALLS, "ZMQ options of a service's socket")
    ] = msgspec.field(default_factory=lambda: {"SNDTIMEO": 1000})

    def time_limit(self, function_name: str) -> float | None:
        """Return the time limit of a function of team code in s, for a main its period, or None.

        A pattern must match the whole name; of several matches the last one counts.
        """
        for pattern, seconds in reversed(self.exec_timeout.items()):
            if re.fullmatch(pattern, function_name):
                return seconds
        return None

    def addresses(self) -> Iterator[tuple[str, str]]:
        """Yield option and address of everything that rt binds or sends to."""
        for option in ("router_frontend", "router_backend", "log_frontend", "log_backend"):
            for address in getattr(self, option):
                yield option, address
        for option in ("control_addr", "update_addr", "dev_vsd_addr"):
            yield option, getattr(self, option)

    def resolved(self, directory: Path) -> "Config":
        """Return the options with the placeholders of all addresses filled in.

        Args:
            directory: The instance directory.

        Raises:
            ConfigError: A placeholder is unknown, a port is not in 1..65535, or the path of a
                socket is longer than the system allows.
        """
        values: dict[str, str | int] = {
            "bind": self.bind,
            "dir": str(directory),
            **{f"port{n}": self.port_base + n for n in range(5)},
        }
        filled: dict[str, list[str]] = {}
        for option, address in self.addresses():
            filled.setdefault(option, []).append(_fill(option, address, values))
        changes = {
            name: tuple(found) if isinstance(getattr(self, name), tuple) else found[0]
            for name, found in filled.items()
        }
        return msgspec.structs.replace(self, **changes)


def _fill(option: str, template: str, values: dict[str, str | int]) -> str:
    try:
        address = template.format_map(values)
    except (KeyError, ValueError, IndexError, AttributeError):
        known = ", ".join(f"{{{name}}}" for name in values)
        raise ConfigError(
            f"{option}: unknown placeholder in {template!r}; allowed are {known}",
            option=option,
            value=template,
        ) from None
    scheme, _, rest = address.partition("://")
    if scheme == "ipc":
        if len(rest.encode()) > _IPC_PATH_BYTES:
            raise ConfigError(
                f"{option}: the path of {address!r} is longer than the {_IPC_PATH_BYTES} bytes"
                " of a socket address; choose a shorter instance name or directory",
                option=option,
                value=address,
            )
    else:
        port = rest.rpartition(":")[2]
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
            raise ConfigError(
                f"{option}: {address!r} does not end in a port from 1 to 65535",
                option=option,
                value=address,
            )
    return address
