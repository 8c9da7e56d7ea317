"""The keys at the robot: its own pair, and what it has to know of each driver's station.

The directory holds `robot.key` and one `NAME.station` for each station. The rule of this module:
the files are the truth. A station whose file is gone is out, a file that cannot be read or is open
to others lets nobody in, and no error here ends a robot that runs. A station's own secret is not
kept at the robot.

Strangers can use up the descriptors of a robot, and must neither throw stations out by that nor
keep a revoked one in: what is known already is looked at without opening anything.
"""

import contextlib
import errno
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from rt.access import key_files
from rt.access.bundle import Bundle, curve_key, datagram_key
from rt.errors import ConfigError
from rt.protocol.signed import ID_BYTES, SECRET_BYTES, DatagramKey

ROBOT_FILE = "robot.key"
STATION_SUFFIX = ".station"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}")
_SCARCITY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_Stamp: TypeAlias = tuple[int, ...]
"""What differs when a file was changed."""


class KeyPair(msgspec.Struct, frozen=True):
    """A CURVE key pair, both in Z85."""

    public: str
    secret: str

    @classmethod
    def new(cls) -> "KeyPair":
        """A pair that nobody else has."""
        import zmq

        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


class Station(msgspec.Struct, frozen=True):
    """What the robot knows of a driver's station.

    Attributes:
        name: 1 to 32 of A-Z a-z 0-9 _ . -.
        public: Its public CURVE key, in Z85.
        datagram: What its control datagrams are verified with.
        made: When the key was made (ISO 8601, UTC).
    """

    name: str
    public: str
    datagram: DatagramKey
    made: str


class Keyring:
    """The stations that may connect, as the files say.

    Args:
        directory: Where the files are; need not exist.

    Attributes:
        stations: By name; those of the last `refresh`.
        datagram_keys: By their ids.
        problems: What is wrong with files, a sentence each.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.stations: dict[str, Station] = {}
        self.datagram_keys: dict[bytes, DatagramKey] = {}
        self.problems: tuple[str, ...] = ()
        self._by_public: dict[str, str] = {}
        self._by_datagram: dict[bytes, str] = {}
        self._seen: dict[str, _Stamp] | None = None

    def refresh(self) -> bool:
        """Look at the directory again; whether anything has changed. Takes some 10 microseconds for each file."""
        seen = self._look()
        if seen == self._seen:
            return False
        stations, problems = self._read_stations(seen, self._seen or {})
        self._seen = seen
        self.stations = stations
        self.problems = tuple(problems)
        self._by_public = {each.public: each.name for each in stations.values()}
        self._by_datagram = {each.datagram.id: each.name for each in stations.values()}
        self.datagram_keys = {each.datagram.id: each.datagram for each in stations.values()}
        return True

    def station_of(self, public: str) -> str | None:
        """The name of the station with a public CURVE key (Z85)."""
        return self._by_public.get(public)

    def station_of_datagram(self, key_id: bytes) -> str | None:
        """The name of the station with the id of a datagram key."""
        return self._by_datagram.get(key_id)

    def robot(self) -> KeyPair:
        """The robot's own pair, made at the first use.

        Raises:
            ConfigError: The file cannot be read or written, or is open to others.
        """
        path = self.directory / ROBOT_FILE
        key_files.make_directory(self.directory)
        if not path.exists():
            pair = KeyPair.new()
            with contextlib.suppress(FileExistsError):  # somebody else was faster; his counts
                key_files.write_new(
                    path, "The robot's own key. Keep it secret.", msgspec.to_builtins(pair)
                )
        try:
            values = key_files.read(path)
            return KeyPair(curve_key(values["public"]), curve_key(values["secret"]))
        except (KeyError, ValueError, FileNotFoundError):
            raise ConfigError(
                f"{path} is no key of a robot: remove it, and give every station a new key",
                path=str(path),
            ) from None

    def new(self, name: str) -> Bundle:
        """Make a key for a station; what it needs is returned and kept nowhere.

        Raises:
            ConfigError: The name is not allowed or taken, or the files cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"a station cannot be named {name!r}: allowed are 1 to 32 of A-Z a-z 0-9 _ . - and no leading dot",
                name=name,
            )
        robot = self.robot()
        pair = KeyPair.new()
        datagram = DatagramKey(secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))
        values = {
            "public": pair.public,
            "datagram_id": datagram.id.hex(),
            "datagram_key": datagram.secret.hex(),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            key_files.write_new(self._path(name), f'The driver\'s station "{name}".', values)
        except FileExistsError:
            raise ConfigError(
                f"there is a key for {name} already: choose another name, or `rt keys revoke {name}` first",
                name=name,
            ) from None
        return Bundle(name, robot.public, pair.public, pair.secret, datagram)

    def revoke(self, name: str) -> None:
        """Make a station's key useless, now and in a robot that runs.

        Raises:
            KeyError: There is no such station.
            ConfigError: The file cannot be removed.
        """
        if not _NAME.fullmatch(name):
            raise KeyError(name)
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise ConfigError(
                f"{self._path(name)} cannot be removed: {error.strerror}", name=name
            ) from None

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}{STATION_SUFFIX}"

    def _read_stations(
        self, seen: dict[str, _Stamp], before: Mapping[str, _Stamp]
    ) -> tuple[dict[str, Station], list[str]]:
        """The stations whose files were seen, and what is wrong with the others; only what has changed is opened."""
        try:
            key_files.check_directory(self.directory)
        except ConfigError as error:
            return {}, [error.message]
        stations = {}
        problems = []
        for filename in sorted(seen):
            if not filename.endswith(STATION_SUFFIX) or filename.startswith("."):
                continue
            name = filename.removesuffix(STATION_SUFFIX)
            try:
                known = self.stations.get(name) if seen[filename] == before.get(filename) else None
                stations[name] = known or self._read_station(name)
            except FileNotFoundError:
                continue
            except ConfigError as error:
                problems.append(error.message)
                if isinstance(error.__cause__, OSError):
                    del seen[filename]  # it may be readable at the next look
        return stations, problems

    def _read_station(self, name: str) -> Station:
        path = self._path(name)
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{self.directory}: no station can be named as {path.name!a}; give that file another name",
                name=ascii(name),
            )
        values = key_files.read(path)
        try:
            return Station(
                name, curve_key(values["public"]), datagram_key(values), str(values.get("made", ""))
            )
        except KeyError as error:
            fault = f"it has no {error.args[0]}"
        except ValueError as error:
            fault = str(error)
        raise ConfigError(
            f"{path} is no key ({fault}): `rt keys revoke {name}`, then make it anew",
            path=str(path),
        )

    def _look(self) -> dict[str, _Stamp]:
        """The files there are, by their names, and the directory under an empty name."""
        known = self._seen or {}
        try:
            paths = [self.directory, *self.directory.iterdir()]
        except OSError as error:
            if error.errno in _SCARCITY:
                # What has changed counts as gone until it can be read.
                paths = [self.directory, *(self.directory / name for name in known if name)]
                return {
                    name: stamp
                    for name, stamp in self._stamps(paths).items()
                    if stamp == known.get(name)
                }
            paths = [self.directory]
        return self._stamps(paths)

    def _stamps(self, paths: Iterable[Path]) -> dict[str, _Stamp]:
        stamps: dict[str, _Stamp] = {}
        for path in paths:
            with contextlib.suppress(OSError):  # gone meanwhile
                info = path.stat()
                name = "" if path is self.directory else path.name
                stamps[name] = (
                    info.st_ino,
                    info.st_mode,
                    info.st_size,
                    info.st_mtime_ns,
                    info.st_ctime_ns,
                )
        return stamps
