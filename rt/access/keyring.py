"""The robot's keyring: its own key pair, and the public and datagram keys of each station.

The directory holds `robot.key` and one `NAME.station` for each station, without the station's
secret CURVE key. Invariant: only stations with a valid file are admitted. A removed file revokes
the station; a file that is unreadable or accessible to others admits nobody; and no error here ends
a running robot.

An attacker may exhaust the robot's descriptors. That must neither disconnect stations nor keep a
revoked one connected, so unchanged files are checked without opening them.
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

from rt.access import private_files
from rt.access.station_key import StationKey, curve_key, datagram_key, problem_of
from rt.errors import ConfigError
from rt.protocol.signed_datagram import ID_BYTES, SECRET_BYTES, DatagramKey

ROBOT_FILE = "robot.key"
STATION_SUFFIX = ".station"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}")
_SCARCITY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_Stamp: TypeAlias = tuple[int, ...]
"""Facts about a file that change when it is modified."""


class KeyPair(msgspec.Struct, frozen=True):
    """A CURVE key pair in Z85."""

    public: str
    secret: str

    @classmethod
    def generate(cls) -> "KeyPair":
        """Generate a random key pair."""
        import zmq

        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


class Station(msgspec.Struct, frozen=True):
    """The keys of a driver's station at the robot.

    Attributes:
        name: 1 to 32 of A-Z a-z 0-9 _ . -, without a leading dot.
        public: Public CURVE key, in Z85.
        datagram: Key that verifies its control datagrams.
        made: Creation time (ISO 8601, UTC).
    """

    name: str
    public: str
    datagram: DatagramKey
    made: str


class Keyring:
    """The stations that may connect, according to the key files.

    Args:
        directory: The key directory; it need not exist.

    Attributes:
        stations: Stations by name, as of the last `refresh`.
        datagram_keys: Datagram keys by id.
        problems: Error messages about invalid files.
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
        """Reload changed files; return whether anything changed. Takes about 10 us a file."""
        seen = self._scan()
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
        """Return the name of the station with a public CURVE key (Z85)."""
        return self._by_public.get(public)

    def station_of_datagram(self, key_id: bytes) -> str | None:
        """Return the name of the station with a datagram key id."""
        return self._by_datagram.get(key_id)

    def robot(self) -> KeyPair:
        """Return the robot's key pair, which is created at the first use.

        Raises:
            ConfigError: The file cannot be read or written, or is accessible to other users.
        """
        path = self.directory / ROBOT_FILE
        private_files.make_directory(self.directory)
        if not path.exists():
            pair = KeyPair.generate()
            with contextlib.suppress(FileExistsError):  # created concurrently; that file is used
                private_files.write_new(
                    path, "The robot's own key. Keep it secret.", msgspec.to_builtins(pair)
                )
        try:
            values = private_files.read(path)
            return KeyPair(curve_key(values["public"]), curve_key(values["secret"]))
        except (KeyError, ValueError, FileNotFoundError):
            raise ConfigError(
                f"{path} is not a robot key; remove it, and create a new key for every station",
                path=str(path),
            ) from None

    def new(self, name: str) -> StationKey:
        """Create the keys of a station; return its station key, which is not stored.

        Raises:
            ConfigError: The name is invalid or taken, or the files cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"invalid station name {name!r}; "
                "use 1 to 32 of A-Z a-z 0-9 _ . - without a leading dot",
                name=name,
            )
        robot = self.robot()
        pair = KeyPair.generate()
        datagram = DatagramKey(secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))
        values = {
            "public": pair.public,
            "datagram_id": datagram.id.hex(),
            "datagram_key": datagram.secret.hex(),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            private_files.write_new(
                self._path(name), f'Key of the driver\'s station "{name}".', values
            )
        except FileExistsError:
            raise ConfigError(
                f"station {name} already has a key; "
                f"choose another name, or run `rt keys revoke {name}` first",
                name=name,
            ) from None
        return StationKey(name, robot.public, pair.public, pair.secret, datagram)

    def revoke(self, name: str) -> None:
        """Revoke a station's key, also in a running robot.

        Raises:
            KeyError: The station does not exist.
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
                f"cannot remove {self._path(name)}: {error.strerror}", name=name
            ) from None

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}{STATION_SUFFIX}"

    def _read_stations(
        self, seen: dict[str, _Stamp], before: Mapping[str, _Stamp]
    ) -> tuple[dict[str, Station], list[str]]:
        """Return the valid stations and the problems; opens only changed files."""
        try:
            private_files.check_directory(self.directory)
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
                    del seen[filename]  # try again at the next refresh
        return stations, problems

    def _read_station(self, name: str) -> Station:
        path = self._path(name)
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{self.directory}: file {path.name!a} has an invalid station name; rename it",
                name=ascii(name),
            )
        values = private_files.read(path)
        try:
            return Station(
                name, curve_key(values["public"]), datagram_key(values), str(values.get("made", ""))
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"{path} is not the public key file of a station: {problem_of(error)}; "
                f"run `rt keys revoke {name}` and `rt keys new {name}`",
                path=str(path),
            ) from None

    def _scan(self) -> dict[str, _Stamp]:
        """Return the stamp of each file by name, and of the directory under an empty name."""
        known = self._seen or {}
        try:
            paths = [self.directory, *self.directory.iterdir()]
        except OSError as error:
            if error.errno in _SCARCITY:
                # A changed file counts as removed until it can be read.
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
            with contextlib.suppress(OSError):  # removed meanwhile
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
