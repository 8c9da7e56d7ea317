"""The request to the linter's process: what to lint, and the options of the robot."""

import msgspec

from rt.config import Config
from rt.errors import ConfigError


class LintRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A program or some files to lint, and the options to check them against.

    Attributes:
        directory: The robot's directory, where modules and relative paths are looked up.
        config: The options: the program, the devices and the time limits.
        files: The files to lint; empty for the whole program.
    """

    directory: str
    config: Config
    files: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Encode the request as MessagePack.

        Raises:
            ConfigError: A path is not valid UTF-8.
        """
        try:
            return msgspec.msgpack.encode(self)
        except UnicodeEncodeError as error:
            path = ascii(error.object)
            raise ConfigError(f"path {path} is not valid UTF-8: rename it", path=path) from None
