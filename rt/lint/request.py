"""The request to the linter's process: what to lint, and the configuration of the robot."""

from typing import Self

import msgspec

from rt.config import Config
from rt.errors import ConfigError


class LintRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A program or some files to lint, and the configuration to check them against.

    Attributes:
        directory: The robot's directory, where modules and relative paths are looked up.
        exec_module: The option: a module's name or a path.
        dev_name: UIDs as decimal strings, by device name.
        dev_catalog: The catalog's file; empty for the built-in one.
        exec_timeout: Time limits in s, by patterns of function names.
        files: The files to lint; empty for the whole program.
    """

    directory: str
    exec_module: str
    dev_name: dict[str, str] = {}
    dev_catalog: str = ""
    exec_timeout: dict[str, float] = {}
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, directory: str, files: tuple[str, ...] = ()) -> Self:
        """Create the request for a robot's program, or for some files."""
        return cls(
            directory=directory,
            files=files,
            exec_module=config.exec_module,
            dev_name=config.dev_name,
            dev_catalog=config.dev_catalog,
            exec_timeout=config.exec_timeout,
        )

    def time_limit(self, function: str) -> float | None:
        """Return the time limit of a function in s, or None; see `rt.config.Config.time_limit`."""
        return Config(exec_timeout=self.exec_timeout).time_limit(function)

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
