"""What is to be linted, and what the linter has to know of the robot: the message that goes to its process."""

from typing import Self

import msgspec

from rt.config import Config
from rt.errors import ConfigError


class LintRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The team's code, or one file, and what there is to check it against.

    Attributes:
        directory: Where modules and relative paths are looked for: the robot's.
        exec_module: A module's name or a path to a file, as the option of that name.
        dev_name: UIDs in decimal by the names that the team gave them.
        dev_catalog: The catalog's file; empty for the one built in.
        exec_timeout: Time limits by patterns of functions' names (s).
        files: The files that records are wanted of; empty for all of the program.
    """

    directory: str
    exec_module: str
    dev_name: dict[str, str] = {}
    dev_catalog: str = ""
    exec_timeout: dict[str, float] = {}
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, directory: str, files: tuple[str, ...] = ()) -> Self:
        """The request for a robot's code, or for some files."""
        return cls(
            directory=directory,
            files=files,
            exec_module=config.exec_module,
            dev_name=config.dev_name,
            dev_catalog=config.dev_catalog,
            exec_timeout=config.exec_timeout,
        )

    def time_limit(self, function: str) -> float | None:
        """How long a function may take (s), None for no limit; see `rt.config.Config.time_limit`."""
        return Config(exec_timeout=self.exec_timeout).time_limit(function)

    def encode(self) -> bytes:
        """The message (MessagePack).

        Raises:
            ConfigError: A path holds bytes that are no text.
        """
        try:
            return msgspec.msgpack.encode(self)
        except UnicodeEncodeError as error:
            path = ascii(error.object)
            raise ConfigError(
                f"{path} is a path with bytes that are no text: rename it", path=path
            ) from None

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """The request that a message carries.

        Raises:
            ConfigError: It is none.
        """
        try:
            return msgspec.msgpack.decode(message, type=cls)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"what is to be linted is not said: {error}") from None
