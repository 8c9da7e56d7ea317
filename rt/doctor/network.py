"""Checks of the network: free addresses, keys for open listeners, and multicast."""

import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from rt.config.network import open_listeners, require_keys
from rt.doctor.registry import Environment, Result, check, fail, ok, warn
from rt.errors import ConfigError

_LISTENING = "0A"
_PROC = Path("/proc")


@check("addresses")
def addresses(environment: Environment) -> Result:
    """The addresses of the robot are free, or it holds them."""
    from rt.instance import Instance

    here = Instance.locate(environment.config.instance)
    settings = environment.effective.resolved(here.directory)
    bound = [each for each in settings.addresses() if each[0] != "update_addr"]
    taken = [
        f"{option} {address}: {why}" for option, address in bound if (why := _bind_error(address))
    ]
    if not taken:
        ports = f"{settings.port_base} to {settings.port_base + 4}"
        return ok(f"{len(bound)} addresses are free, ports {ports}")
    holder = here.holder()
    if holder is not None:
        return ok(f"held by this robot, process {holder.pid}")
    return fail(
        "\n".join(taken),
        "stop that program, or move all ports of this robot, for example with --port-base 7000",
    )


@check("keys")
def keys(environment: Environment) -> Result:
    """Other machines need a key to reach the robot."""
    from rt.access.key_directory import key_directory
    from rt.access.keyring import Keyring
    from rt.instance import Instance

    directory = Instance.locate(environment.config.instance).directory
    settings = environment.effective.resolved(directory)
    network = open_listeners(settings)
    if not network:
        return ok(f"{environment.whose} is open to this machine only")
    addresses = ", ".join(address for _, address in network)
    if settings.insecure:
        return warn(
            f"anyone who can reach {addresses} can drive {environment.whose} (insecure)",
            "remove `insecure`, and make a key for each driver's station with `rt keys new NAME`",
        )
    place = key_directory(settings.keys_dir, settings.instance, folder=environment.directory)
    ring = Keyring(place.directory)
    ring.refresh()
    if ring.problems:
        return fail(
            "\n".join(ring.problems),
            "correct or remove these files; `rt keys list` shows the valid keys",
        )
    try:
        require_keys(settings, ring.stations)
    except ConfigError as error:
        return fail(
            error.message,
            "make a key with `rt keys new NAME`, or remove bind to serve this machine only",
        )
    if place.hint:
        return warn(f"{place.directory} is in the project folder", place.hint)
    return ok(f"{addresses}: open to {', '.join(sorted(ring.stations))}")


@check("multicast")
def multicast(environment: Environment) -> Result:
    """A datagram to the multicast group of device updates arrives on this machine."""
    address = environment.effective.resolved(environment.directory).update_addr
    host, _, port = address.removeprefix("udp://").rpartition(":")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(type=socket.SOCK_DGRAM) as sender,
    ):
        receiver.settimeout(1.0)
        try:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            receiver.bind((host, 0))
            group = struct.pack("4s4s", socket.inet_aton(host), socket.inet_aton("127.0.0.1"))
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            sender.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            sender.sendto(b"rt doctor", receiver.getsockname())
            receiver.recv(64)
        except OSError as error:
            return warn(
                f"a datagram to {host} does not arrive: {error.strerror or error}",
                "run `sudo ip link set lo multicast on` to allow multicast on the loopback"
                " interface",
            )
    return ok(f"datagrams to {host} arrive, updates go to port {port}")


def _bind_error(address: str) -> str:
    scheme, _, rest = address.partition("://")
    if scheme == "ipc":
        return _ipc_error(rest)
    host, _, port = rest.rpartition(":")
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    try:
        family, _, _, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=kind)[0]
        with socket.socket(family, kind) as probe:
            if scheme == "tcp":  # connections of a robot that has just stopped do not matter
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"held by {owner_of(scheme, int(port))}"
        return error.strerror or str(error)
    return ""


def _ipc_error(path: str) -> str:
    # A file without a listener is left from a killed robot; the next start removes it.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            return (
                ""
                if error.errno in {errno.ENOENT, errno.ECONNREFUSED}
                else error.strerror or str(error)
            )
    return "held by another process"


def owner_of(protocol: str, port: int) -> str:
    """Return the owner of a TCP or UDP port as "process 123 (name)", if this user may see it."""
    links = {f"socket:[{inode}]" for inode in _inodes(protocol, port)}
    for directory in _PROC.glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in links for link in (directory / "fd").iterdir()):
                return f"process {directory.name} ({_command(directory)})"
        except OSError:  # it has ended, or belongs to another user
            continue
    return "a process of another user"


def _inodes(protocol: str, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets of a port, to which links in /proc/PID/fd point.

    Source: proc(5), /proc/net/tcp: the second column is the local address with the port in
    hexadecimal, the tenth is the inode.
    """
    for table in (protocol, f"{protocol}6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            listens = protocol == "udp" or columns[3] == _LISTENING
            if listens and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _command(directory: Path) -> str:
    words = (directory / "cmdline").read_bytes().split(b"\0")
    return b" ".join(words).decode(errors="replace").strip()[:60]
