"""The file that a driver's station needs: the robot's public key and the station's own keys."""

import struct
from pathlib import Path

import msgspec

from rt.access import private_files
from rt.errors import ConfigError
from rt.protocol.signed_datagram import DatagramKey

Z85_BYTES = 40
"""Length of a CURVE key as text."""
CURVE_BYTES = 32


class StationKey(msgspec.Struct, frozen=True):
    """The keys of a station. CURVE keys are in Z85.

    Attributes:
        station: Name of the station.
        robot_public: Public CURVE key of the robot.
        public: Public CURVE key of the station.
        secret: Secret CURVE key of the station.
        datagram: Key that signs control datagrams.
    """

    station: str
    robot_public: str
    public: str
    secret: str
    datagram: DatagramKey

    def write(self, path: Path) -> None:
        """Write the station key to a new file that only its owner can read.

        Raises:
            ConfigError: The file exists or cannot be written.
        """
        comment = (
            f'Key of the driver\'s station "{self.station}".\n'
            "Anyone who has this file can drive the robot, so keep it secret.\n"
            f"`rt keys revoke {self.station}` on the robot makes it invalid."
        )
        try:
            private_files.write_new(path, comment, self._fields())
        except FileExistsError:
            raise ConfigError(
                f"{path} exists; choose another file with --output", path=str(path)
            ) from None

    def _fields(self) -> dict[str, str]:
        return {
            "station": self.station,
            "robot_public": self.robot_public,
            "public": self.public,
            "secret": self.secret,
            "datagram_id": self.datagram.id.hex(),
            "datagram_key": self.datagram.secret.hex(),
        }

    def text(self) -> str:
        """Return the content of the file without its comment."""
        return "".join(f'{name} = "{value}"\n' for name, value in self._fields().items())

    @classmethod
    def load(cls, path: Path) -> "StationKey":
        """Read a station key; its permissions are not checked.

        Raises:
            ConfigError: The file is missing, or not a station key.
        """
        try:
            values = private_files.read(path, private=False)
        except FileNotFoundError:
            raise ConfigError(
                f"{path} does not exist; `rt keys new NAME` on the robot creates a station key",
                path=str(path),
            ) from None
        try:
            return cls(
                str(values["station"]),
                curve_key(values["robot_public"]),
                curve_key(values["public"]),
                curve_key(values["secret"]),
                datagram_key(values),
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"{path} is not a station key: {problem_of(error)}; "
                "`rt keys new NAME` on the robot creates one",
                path=str(path),
            ) from None


def problem_of(error: KeyError | ValueError) -> str:
    """Describe a missing or invalid value of a key file."""
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def curve_key(value: object) -> str:
    """Validate a CURVE key that was read from a file.

    Raises:
        ValueError: The value is not a CURVE key in Z85.
    """
    from zmq.utils import z85

    try:
        if (
            isinstance(value, str)
            and len(value) == Z85_BYTES
            and len(z85.decode(value)) == CURVE_BYTES
        ):
            return value
    except (KeyError, ValueError, struct.error):
        pass  # a character outside Z85, or five characters that exceed 32 bits
    # Not quoted: a slightly damaged secret is still a secret.
    raise ValueError(f"a key is not {Z85_BYTES} characters of Z85")


def datagram_key(values: dict[str, object]) -> DatagramKey:
    """Return the datagram key from the values of a file.

    Raises:
        KeyError: A value is missing.
        ValueError: A value is invalid.
    """
    try:
        return DatagramKey(
            bytes.fromhex(str(values["datagram_id"])), bytes.fromhex(str(values["datagram_key"]))
        )
    except ValueError:
        raise ValueError(
            "datagram_id or datagram_key is not hexadecimal or has the wrong length"
        ) from None
