"""The one file that a driver's station needs: whom to trust, and how to prove who it is."""

import struct
from pathlib import Path

import msgspec

from rt.access import key_files
from rt.errors import ConfigError
from rt.protocol.signed import DatagramKey

Z85_BYTES = 40
"""Length of a CURVE key as text."""
CURVE_BYTES = 32


class Bundle(msgspec.Struct, frozen=True):
    """What a station has.

    Attributes:
        station: Its name.
        robot_public: The robot's public CURVE key, in Z85, as the following two.
        public: The station's public CURVE key.
        secret: The station's secret CURVE key.
        datagram: What it signs control datagrams with.
    """

    station: str
    robot_public: str
    public: str
    secret: str
    datagram: DatagramKey

    def write(self, path: Path) -> None:
        """Write it to a new file, readable by its owner alone.

        Raises:
            ConfigError: The file exists or cannot be written.
        """
        comment = (
            f'The key of the driver\'s station "{self.station}". Whoever has this file can drive the robot: keep it secret.\n'
            f"`rt keys revoke {self.station}`, at the robot, makes it useless."
        )
        try:
            key_files.write_new(path, comment, self._fields())
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
        """As in the file, without its comment."""
        return "".join(f'{name} = "{value}"\n' for name, value in self._fields().items())

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        """Read a station's file; who may read it is the station's affair.

        Raises:
            ConfigError: There is none, or it is none.
        """
        try:
            values = key_files.read(path, private=False)
        except FileNotFoundError:
            raise ConfigError(
                f"there is no {path}: `rt keys new NAME` makes such a file, at the robot",
                path=str(path),
            ) from None
        try:
            found = cls(
                str(values["station"]),
                curve_key(values["robot_public"]),
                curve_key(values["public"]),
                curve_key(values["secret"]),
                datagram_key(values),
            )
        except KeyError as error:
            raise _none(path, f"it has no {error.args[0]}") from None
        except ValueError as error:
            raise _none(path, str(error)) from None
        return found


def _none(path: Path, fault: str) -> ConfigError:
    return ConfigError(
        f"{path} is no key of a driver's station ({fault}): `rt keys new NAME` makes one, at the robot",
        path=str(path),
    )


def curve_key(value: object) -> str:
    """A CURVE key that was read.

    Raises:
        ValueError: It is none.
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
        pass  # a character that Z85 does not have, or five that say more than 32 bits
    # A secret that is a little damaged is still one: it is not quoted.
    raise ValueError(f"one of its keys is not {Z85_BYTES} characters in Z85")


def datagram_key(values: dict[str, object]) -> DatagramKey:
    """The datagram key among values that were read.

    Raises:
        KeyError, ValueError: It is not there, or is none.
    """
    try:
        return DatagramKey(
            bytes.fromhex(str(values["datagram_id"])), bytes.fromhex(str(values["datagram_key"]))
        )
    except ValueError:
        raise ValueError(
            "its datagram_id or datagram_key is not hexadecimal, or has another length"
        ) from None
