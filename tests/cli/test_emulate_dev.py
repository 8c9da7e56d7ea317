"""The `rt emulate-dev` command: devices, output and errors."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import rt
from rt.link.serial import SerialLink
from rt.protocol import frames
from rt.protocol.message import DevData, DevRead, Ping, SubRes

PATIENCE = 40.0
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("RT_")}
ENVIRONMENT = {**CLEAN, "PYTHONPATH": str(Path(rt.__file__).parent.parent), "COLUMNS": "120"}
COMMAND = [sys.executable, "-P", "-m", "rt", "emulate-dev"]


class Emulator:
    """A running `rt emulate-dev` and its output."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = {"stdout": b"", "stderr": b""}

    async def lines(self, count: int, stream: str = "stdout") -> list[str]:
        """Wait for ``count`` lines of a stream."""
        found: list[str] = []
        source = getattr(self.process, stream)
        with trio.fail_after(PATIENCE):
            while len(found) < count:
                line, newline, rest = self._rest[stream].partition(b"\n")
                if newline:
                    found.append(line.decode())
                    self._rest[stream] = rest
                    continue
                data = await source.receive_some()
                assert data, f"the emulator ended after {found}"
                self._rest[stream] += data
        return found

    async def stop(self, signum: int = signal.SIGINT) -> int:
        self.process.send_signal(signum)
        with trio.fail_after(PATIENCE):
            code: int = await self.process.wait()
        return code


@asynccontextmanager
async def emulator(folder: Path, *arguments: str) -> AsyncIterator[Emulator]:
    process = await trio.lowlevel.open_process(
        [*COMMAND, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        try:
            yield Emulator(process)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def ask(port: str, message: Ping | DevRead) -> object:
    link = await SerialLink.open(port)
    try:
        with trio.fail_after(PATIENCE):
            await link.send(frames.encode(message))
            reader = frames.FrameReader()
            while not (
                items := [
                    item
                    for item in reader.feed(await link.receive())
                    if isinstance(item, SubRes | DevData)
                ]
            ):
                pass
    finally:
        await link.aclose()
    return items[0]


async def test_ports_are_printed_with_device_and_uid(tmp_path: Path) -> None:
    async with emulator(
        tmp_path, "--pty", 'limit-switch@1..2:{"switch1": true}', "encoder"
    ) as running:
        rows = [line.split(" ") for line in await running.lines(3)]
        assert [(name, uid) for _, name, uid in rows] == [
            ("limit-switch", "1"),
            ("limit-switch", "2"),
            ("encoder", str(3 << 72)),
        ]
        for port, _, uid in rows:
            assert await ask(port, Ping()) == SubRes(0, 0, int(uid))
        assert await ask(rows[1][0], DevRead(0b111)) == DevData(0b111, b"\0\1\0")
        assert await running.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_links_are_named_after_devices_and_removed(tmp_path: Path, signum: int) -> None:
    folder = tmp_path / "ports"
    arguments = (
        "--pty-dir",
        str(folder),
        "--dev-name",
        f"left:{12 << 72 | 3}",
        "left",
        "polar-bear@4",
    )
    folder.mkdir()
    (folder / "left").symlink_to("/dev/pts/none")  # stale, from a killed emulator
    async with emulator(tmp_path, *arguments, str(12 << 72 | 7 << 64 | 5)) as running:
        rows = [line.split(" ") for line in await running.lines(3)]
        names = ["left", "polar-bear@4", f"polar-bear-{12 << 72 | 7 << 64 | 5}"]
        assert [path for path, *_ in rows] == [str(folder / name) for name in names]
        assert await ask(str(folder / "left"), Ping()) == SubRes(0, 0, 12 << 72 | 3)
        async with emulator(tmp_path, "--pty-dir", str(folder), "polar-bear@4") as rival:
            assert "polar-bear@4 already exists" in (await rival.lines(1, "stderr"))[0]
        assert await running.stop(signum) == 0
    assert list(folder.iterdir()) == []


async def test_wave_moves_only_sensors_without_value(tmp_path: Path) -> None:
    async with emulator(tmp_path, "--pty", "--wave", 'potentiometer:{"pot1": 0.5}') as running:
        ((port, *_),) = [line.split(" ") for line in await running.lines(1)]
        values: set[bytes] = set()
        with trio.fail_after(PATIENCE):
            while len(values) < 3:
                answer = await ask(port, DevRead(0b111))
                assert isinstance(answer, DevData)
                assert answer.data[4:8] == b"\0\0\0\x3f"
                values.add(answer.data[:4])
        assert await running.stop() == 0


async def test_faults_are_printed_with_seed(tmp_path: Path) -> None:
    async with emulator(
        tmp_path, "--pty", "--fault", "drop=0.5", "--fault", "delay", "rfid@1..3"
    ) as running:
        (line,) = await running.lines(1, "stderr")
        assert line.startswith("3 devices with --fault drop=0.5 --fault delay=0.1 --seed ")
        assert int(line.rpartition(" ")[2]) >= 0
        await running.lines(3)
        assert await running.stop() == 0
    async with emulator(tmp_path, "--seed", "42", "--pty", "--fault", "freeze", "rfid") as running:
        assert await running.lines(1, "stderr") == ["1 device with --fault freeze=5 --seed 42"]


async def test_tcp_device_prints_connection_changes(tmp_path: Path) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        port = listener.socket.getsockname()[1]
        async with emulator(
            tmp_path, "--dev-vsd-addr", f"tcp://127.0.0.1:{port}", "encoder@9"
        ) as running:
            stream = await listener.accept()
            says = f"encoder {3 << 72 | 9}"
            assert sorted(await running.lines(2)) == [
                "Ctrl-C disconnects the devices",
                f"{says} connected to tcp://127.0.0.1:{port}",
            ]
            await stream.aclose()
            assert f"{says} no longer connected to tcp://127.0.0.1:{port}" in await running.lines(1)
            async with await listener.accept():
                assert await running.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--fault", "freez", "rfid"],
            "rt: --fault freez: unknown fault 'freez'; use drop, delay, corrupt",
        ),
        (["--fault", "drop", "--fault", "drop=1", "rfid"], "drop is given twice"),
        (["--seed", "-1", "rfid"], "--seed"),
        (["rfid@1..3", "rfid@2"], "rfid@2 is given twice"),
        (["--dev-name", "left_motor:7", "left_moter"], "did you mean left_motor?"),
        (["polar-bare"], "did you mean polar-bear?"),
        (["--pty-dir", "file", "rfid"], "file"),
    ],
)
def test_invalid_arguments_are_refused_with_one_message(
    tmp_path: Path, arguments: list[str], reason: str
) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in {1, 2}
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
