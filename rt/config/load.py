"""Loading of the options: defaults < rt.toml < overrides < RT_* < flags.

Every value is checked where it is read, so that an error can name the place. A single value
replaces the one below it. Maps are merged entry by entry; a repeated entry moves to the end.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rt.config import overrides
from rt.config.option_info import OPTIONS, Option
from rt.config.options import Config
from rt.config.value import check_entry, check_value, find_option, parse_pairs
from rt.errors import ConfigError
from rt.text import nearest

if TYPE_CHECKING:
    from rt.config.toml import Document

FILE_NAME = "rt.toml"

_NEAR = 0.8  # higher than elsewhere, because all variables have a common prefix

ENVIRONMENT: Mapping[str, str] = {
    "RT_CONFIG": "path of the rt.toml to read",
    "RT_INSTANCE_DIR": "set by rt in each process of a robot: the instance directory",
    "RT_CHILD": "set by rt in each process of a robot: which child of the root it belongs to",
    "RT_ROBOT": "address of a robot on another machine, as --robot",
    "RT_KEY": "file with the key for it, as --key",
    "RT_BINARY": "executable that the system tests start instead of the source",
}
"""Variables that begin with RT_ and set no option."""


class Loaded(msgspec.Struct, frozen=True):
    """A configuration with its sources.

    Attributes:
        config: The options.
        origins: The origin of each option's value: "default", "rt.toml:12", "set_option",
            "RT_PORT_BASE" or "--port-base"; for a map, all places that gave entries, joined by
            ", ".
        file: The rt.toml that was read, or None.
    """

    config: Config
    origins: dict[str, str]
    file: Path | None = None


def load(
    *,
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    file: Path | None = None,
    cwd: Path | None = None,
    with_overrides: bool = True,
) -> Loaded:
    """Read all sources and return the options of this robot.

    Args:
        flags: Values of the command line by option name; None and () mean that a flag was not
            given.
        env: The environment; by default that of this process.
        file: The rt.toml to read; by default that of RT_CONFIG, else the one in `cwd` if it exists.
        cwd: Directory of rt.toml; by default the working directory.
        with_overrides: Whether the overrides apply; see `rt.config.overrides`.

    Raises:
        ConfigError: An option is unknown or its value is not allowed; the message names the place,
            the allowed values and the nearest name.
    """
    variables = os.environ if env is None else env
    directory = Path.cwd() if cwd is None else cwd
    layers = _Layers()
    document = _document(file, variables, directory)
    if document is not None:
        _read_document(layers, document, directory)
    if with_overrides:
        _read_overrides(layers, variables, flags or {})
    _read_environment(layers, variables)
    for name, value in (flags or {}).items():
        if value is None or value == ():
            continue
        option = find_option(name, f"--{name.replace('_', '-')}")
        layers.put(
            option, value, f"--no-{option.flag[2:]}" if value is False else option.flag, text=True
        )
    return layers.finish(document.path if document else None)


class _Layers:
    """The values read so far; each new value overrides them.

    Args:
        values: Values that were checked earlier.
        origin: Their origin.
    """

    def __init__(self, values: Mapping[str, Any] = {}, origin: str = "default") -> None:
        self._values = dict(values)
        self._origins = dict.fromkeys(OPTIONS, origin)
        self._places: dict[str, str] = {}

    def value(self, option: Option) -> Any:
        """Return the current value of an option."""
        return self._values.get(option.name, option.default)

    def put(
        self,
        option: Option,
        raw: object,
        place: str,
        *,
        text: bool = False,
        places: Mapping[str, str] = {},
    ) -> None:
        """Check a value and add it; to a map, its entries.

        Args:
            option: The option.
            raw: The value.
            place: Place of the value.
            text: Whether every type comes as text, as in the environment.
            places: Place of each entry of a map, if known.
        """
        if option.kind != "map":
            self._values[option.name] = check_value(option, raw, place, text=text)
            self._origins[option.name] = place
            return
        if not isinstance(raw, Mapping):
            raw, text = parse_pairs(option, raw, place), True
        entries = {
            str(key): check_entry(option, str(key), each, places.get(key, place), text=text)
            for key, each in raw.items()
        }
        below, origin = self.value(option), self._origins[option.name]
        kept = {key: each for key, each in below.items() if key not in entries}
        self._values[option.name] = {**kept, **entries}
        self._origins[option.name] = f"{origin}, {place}" if below and origin != place else place
        if option.name == "dev_name":
            self._places |= places

    def _refuse_duplicate_uids(self, config: Config) -> None:
        named: dict[int, str] = {}
        for name, uid in config.dev_name.items():
            other = named.setdefault(int(uid), name)
            if other != name:
                place = self._places.get(name, self._origins["dev_name"])
                raise ConfigError(
                    f"{place}: dev_name gives {other} and {name} the same UID {uid};"
                    " remove one of them",
                    option="dev_name",
                )

    def finish(self, file: Path | None) -> Loaded:
        """Check the options together and return them."""
        config = Config(**self._values)
        self._refuse_duplicate_uids(config)
        try:
            config.resolved(Path("/"))
        except ConfigError as error:
            raise ConfigError(
                f"{self._origins[error.context['option']]}: {error.message}", **error.context
            ) from None
        return Loaded(config, self._origins, file)


def _document(file: Path | None, env: Mapping[str, str], cwd: Path) -> "Document | None":
    source = "--config" if file else "RT_CONFIG"
    if file is None and env.get("RT_CONFIG"):
        file = Path(env["RT_CONFIG"])
    if file is None and not (cwd / FILE_NAME).exists():
        return None
    if file is not None and not (cwd / file).is_file():
        raise ConfigError(f"{source}: file {str(file)!r} does not exist", file=str(file))
    from rt.config import toml

    return toml.read(cwd / (file or FILE_NAME), str(file or FILE_NAME))


def _read_document(layers: _Layers, document: "Document", cwd: Path) -> None:
    for name, raw in document.values.items():
        place = document.place(name)
        if name == "component":
            raise ConfigError(
                f"{place}: [component] tables are not supported by this version of rt", option=name
            )
        if name not in OPTIONS and _resembles_uid(raw):
            raise ConfigError(
                f"{place}: unknown option {name!r}; put device names into the table [dev_name]",
                option=name,
            )
        option = find_option(name, place)
        value, places = raw, dict[str, str]()
        if option.kind == "map" and isinstance(raw, dict):
            places = {key: document.place(name, key) for key in raw}
            _refuse_misplaced(option, raw, places)
        elif option.is_path and isinstance(raw, str) and re.search(r"/|\.(py|toml)$", raw):
            folder = document.path.parent
            value = raw if folder == cwd else str(folder.absolute() / raw)
        layers.put(option, value, place, places=places)


def _read_overrides(layers: _Layers, env: Mapping[str, str], flags: Mapping[str, object]) -> None:
    """Add the overrides of the instance that rt.toml, the variables and the flags name."""
    name = flags.get("instance") or env.get("RT_INSTANCE") or layers.value(OPTIONS["instance"])
    try:
        check_value(OPTIONS["instance"], name, "instance", text=False)
    except ConfigError:
        return  # reported when the source that gave the name is read
    directory = overrides.state_directory(str(name), env)
    values = overrides.read(directory)
    try:
        for option, raw in values.items():
            layers.put(find_option(option, overrides.ORIGIN), raw, overrides.ORIGIN)
    except ConfigError as error:
        assert directory is not None
        remedy = f"run `rt config unset`, or correct {directory / overrides.FILE_NAME}"
        raise ConfigError(f"{error.message}; {remedy}", **error.context) from None


def apply_overrides(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a robot's options with overrides applied; maps are merged entry by entry.

    Raises:
        ConfigError: A name or a value is wrong, with the message of `load`.
    """
    layers = _Layers({name: getattr(config, name) for name in OPTIONS}, overrides.ORIGIN)
    for name, raw in values.items():
        layers.put(find_option(name, overrides.ORIGIN), raw, overrides.ORIGIN)
    return layers.finish(None).config


def _resembles_uid(raw: object) -> bool:
    """Whether a value has the length of a UID whose device id is not 0."""
    return isinstance(raw, str | int) and re.fullmatch(r"[0-9]{19,27}", str(raw)) is not None


def _refuse_misplaced(option: Option, raw: Mapping[str, object], places: Mapping[str, str]) -> None:
    """Refuse an option below a table header, where TOML makes it an entry of the table."""
    for key in raw:
        # A device may have the name of an option; the UID tells them apart.
        if key in OPTIONS and not (option.name == "dev_name" and _resembles_uid(raw[key])):
            raise ConfigError(
                f"{places[key]}: {key} is an option, but is below [{option.name}];"
                " move it above the first [table]",
                option=key,
            )


def _read_environment(layers: _Layers, env: Mapping[str, str]) -> None:
    by_variable = {option.env: option for option in OPTIONS.values()}
    for variable, text in env.items():
        if not variable.startswith("RT_") or variable in ENVIRONMENT:
            continue
        if variable not in by_variable:
            near = nearest(variable, [*by_variable, *ENVIRONMENT], cutoff=_NEAR)
            hint = near or "; remove it, `rt config` lists the known ones"
            raise ConfigError(f"{variable}: unknown variable{hint}", variable=variable)
        option = by_variable[variable]
        raw: object = text
        if option.kind == "list":
            raw = [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
        layers.put(option, raw, variable, text=True)
