"""Socket files that are removed while a process listens at them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import zmq

from rt.errors import ConfigError, InstanceBusyError
from rt.transport.zmq_socket import Socket, rebind_socket_files


def remove(path: Path) -> None:
    path.unlink()


def replace_by_file(path: Path) -> None:
    path.unlink()
    path.touch()


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


async def is_reachable(server: Socket, address: str) -> bool:
    """Return whether a message of a new client without a key arrives."""
    with Socket(zmq.DEALER) as client, trio.fail_after(30):
        client.connect(address)
        await client.send([b"hello"])
        return (await server.recv())[-1] == b"hello"


@pytest.mark.parametrize("act", [remove, replace_by_file, replace_by_link])
async def test_removed_socket_file_is_bound_again(
    tmp_path: Path, act: Callable[[Path], None]
) -> None:
    path = tmp_path / "x.sock"
    with Socket(zmq.ROUTER) as server, Socket(zmq.DEALER) as before:
        address = server.bind(f"ipc://{path}")
        before.connect(address)
        await before.send([b"early"])
        with trio.fail_after(30):
            await server.recv()
        assert rebind_socket_files() == []
        act(path)
        assert rebind_socket_files() == [address]
        assert rebind_socket_files() == []
        assert await is_reachable(server, address)
        await before.send([b"still here"])
        with trio.fail_after(30):
            assert (await server.recv())[-1] == b"still here"
    assert rebind_socket_files() == []


async def test_missing_directory_of_a_socket_file_is_reported(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    with Socket(zmq.ROUTER) as server:
        address = server.bind(f"ipc://{directory}/x.sock")
        (directory / "x.sock").unlink()
        directory.rmdir()
        with pytest.raises((ConfigError, InstanceBusyError), match="cannot bind"):
            rebind_socket_files()
        directory.mkdir()
        assert rebind_socket_files() == [address]
        assert await is_reachable(server, address)
