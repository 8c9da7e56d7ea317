"""Where a value comes from: defaults < rt.toml < set_option < RT_* < flags.

Every value is checked where it enters, so that an error can name the place. Single values replace
what lies below; maps are laid over it entry by entry, and an entry that is given again moves to the
end.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rt.config import overrides
from rt.config.option import OPTIONS, Option
from rt.config.options import Config
from rt.config.value import check_entry, check_value, find_option, parse_pairs
from rt.errors import ConfigError
from rt.text import nearest

if TYPE_CHECKING:
    from rt.config.toml import Document

FILE_NAME = "rt.toml"

_NEAR = 0.8  # all variables begin alike, so that even different ones are half alike

ENVIRONMENT: Mapping[str, str] = {
    "RT_CONFIG": "path of the rt.toml to read",
    "RT_INSTANCE_DIR": "set by rt in each process of a robot: the instance directory",
    "RT_CHILD": "set by rt in each process of a robot: which child of the root it belongs to",
    "RT_ROBOT": "address of a robot on another machine, as --robot",
    "RT_KEY": "file with the key for it, as --key",
    "RT_BINARY": "executable that the system tests start instead of the source",
}
"""Variables beside those of the options, which begin with RT_ too."""


class Loaded(msgspec.Struct, frozen=True):
    """A configuration and where it came from.

    Attributes:
        config: The options.
        origins: For each option where its value was given: "default", "rt.toml:12", "RT_PORT_BASE"
            or "--port-base"; for a map, every place that gave entries, joined by ", ".
        file: The rt.toml that was read, if one was.
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
    """Read every source and return the options of this robot.

    Args:
        flags: Values of the command line by option name; None and () stand for a flag that was not
            given.
        env: The environment; the process's own when absent.
        file: The rt.toml to read; when absent RT_CONFIG's, else the one of `cwd` if there is one.
        cwd: Where rt.toml is looked for; the working directory when absent.
        with_overrides: Whether what `set_option` keeps counts; see `rt.config.overrides`.

    Raises:
        ConfigError: An unknown or bad value; the message is one sentence with its place, what is
            allowed and the nearest name.
    """
    variables = os.environ if env is None else env
    directory = Path.cwd() if cwd is None else cwd
    layers = _Layers()
    document = _document(file, variables, directory)
    if document is not None:
        _read_document(layers, document, directory)
    if with_overrides:
        _read_kept(layers, variables, flags or {})
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
    """The values so far; what is put lies over them."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origins = dict.fromkeys(OPTIONS, "default")
        self._places: dict[str, str] = {}

    def put(self, option: Option, raw: object, place: str, *, text: bool) -> None:
        if option.kind == "map":
            given = parse_pairs(option, raw, place)
            self.lay(
                option,
                {
                    key: check_entry(option, key, each, place, text=True)
                    for key, each in given.items()
                },
                place,
            )
        else:
            self._values[option.name] = check_value(option, raw, place, text=text)
            self._origins[option.name] = place

    def begin(self, name: str, value: Any) -> None:
        """Begin with a value that has been checked, wherever it came from."""
        self._values[name] = value
        self._origins[name] = overrides.ORIGIN

    def value(self, name: str) -> Any:
        """The value of an option so far."""
        return self._values.get(name, OPTIONS[name].default)

    def put_override(self, option: Option, raw: object) -> None:
        """Put a value that came in a call: of a map, a map."""
        if option.kind == "map" and isinstance(raw, Mapping):
            checked = {
                key: check_entry(option, str(key), each, overrides.ORIGIN, text=False)
                for key, each in raw.items()
            }
            self.lay(option, checked, overrides.ORIGIN)
        else:
            self.put(option, raw, overrides.ORIGIN, text=False)

    def note_places(self, places: Mapping[str, str]) -> None:
        """Note where the names of devices are given, each on a line of its own."""
        self._places |= places

    def lay(self, option: Option, entries: Mapping[str, Any], place: str) -> None:
        below = self._values.get(option.name, option.default)
        self._values[option.name] = {
            **{key: each for key, each in below.items() if key not in entries},
            **entries,
        }
        origin = self._origins[option.name]
        self._origins[option.name] = f"{origin}, {place}" if below and origin != place else place

    def _refuse_twins(self, config: Config) -> None:
        named: dict[int, str] = {}
        for name, uid in config.dev_name.items():
            other = named.setdefault(int(uid), name)
            if other != name:
                place = self._places.get(name, self._origins["dev_name"])
                raise ConfigError(
                    f"{place}: dev_name gives {other} and {name} the same UID {uid}: remove one of them",
                    option="dev_name",
                )

    def finish(self, file: Path | None) -> Loaded:
        config = Config(**self._values)
        self._refuse_twins(config)
        try:
            config.resolved(Path("/"))
        except ConfigError as error:
            raise ConfigError(
                f"{self._origins[error.context['option']]}: {error.message}", **error.context
            ) from None
        return Loaded(config, self._origins, file)


def _document(file: Path | None, env: Mapping[str, str], cwd: Path) -> "Document | None":
    asked = "--config" if file else "RT_CONFIG"
    if file is None and env.get("RT_CONFIG"):
        file = Path(env["RT_CONFIG"])
    if file is None and not (cwd / FILE_NAME).exists():
        return None
    if file is not None and not (cwd / file).is_file():
        raise ConfigError(f"{asked}: there is no file {str(file)!r}", file=str(file))
    from rt.config import toml

    return toml.read(cwd / (file or FILE_NAME), str(file or FILE_NAME))


def _read_document(layers: _Layers, document: "Document", cwd: Path) -> None:
    for name, raw in document.values.items():
        place = document.place(name)
        if name == "component":
            raise ConfigError(
                f"{place}: [component] tables are not supported by this version of rt", option=name
            )
        if name not in OPTIONS and _like_uid(raw):
            raise ConfigError(
                f"{place}: unknown option {name!r}; a device's name belongs below a line [dev_name]",
                option=name,
            )
        option = find_option(name, place)
        if option.kind == "map" and isinstance(raw, dict):
            places = {key: document.place(name, key) for key in raw}
            _refuse_misplaced(option, raw, places)
            if option.name == "dev_name":
                layers.note_places(places)
            layers.lay(
                option,
                {key: check_entry(option, key, raw[key], places[key], text=False) for key in raw},
                place,
            )
        elif (
            option.is_path
            and isinstance(raw, str)
            and _names_file(raw)
            and document.path.parent != cwd
        ):
            layers.put(option, str(document.path.parent.absolute() / raw), place, text=False)
        else:
            layers.put(option, raw, place, text=False)


def _read_kept(layers: "_Layers", env: Mapping[str, str], flags: Mapping[str, object]) -> None:
    """Lay over what was set from afar for this instance, of which the name is known by now."""
    name = flags.get("instance") or env.get("RT_INSTANCE") or layers.value("instance")
    try:
        check_value(OPTIONS["instance"], name, "instance", text=False)
    except ConfigError:
        return  # told where the name was given
    directory = overrides.state_directory(str(name), env)
    values = overrides.read(directory)
    try:
        for option, raw in values.items():
            layers.put_override(find_option(option, overrides.ORIGIN), raw)
    except ConfigError as error:
        assert directory is not None
        remedy = f"correct or remove {directory / overrides.FILE_NAME}, where it is kept, or take it back by `rt config unset`"
        raise ConfigError(f"{error.message}; {remedy}", **error.context) from None


def apply_overrides(config: Config, values: Mapping[str, Any]) -> Config:
    """The options that a robot has, with others set over them from afar; maps entry by entry.

    Raises:
        ConfigError: A name or a value is wrong, in the words of `load`.
    """
    layers = _Layers()
    for name in OPTIONS:
        layers.begin(name, getattr(config, name))
    for name, raw in values.items():
        layers.put_override(find_option(name, overrides.ORIGIN), raw)
    return layers.finish(None).config


def _like_uid(raw: object) -> bool:
    """Whether a value has the length of a UID whose device id is not 0."""
    return (
        re.fullmatch(r"[0-9]{19,27}", str(raw)) is not None if isinstance(raw, str | int) else False
    )


def _refuse_misplaced(option: Option, raw: Mapping[str, object], places: Mapping[str, str]) -> None:
    """Refuse an option that was written below a table's header, and so became an entry of the table."""
    for key in raw:
        # A device may well be called as an option is: its UID tells it from the option.
        if key in OPTIONS and not (option.name == "dev_name" and _like_uid(raw[key])):
            raise ConfigError(
                f"{places[key]}: {key} is an option, but stands below [{option.name}]: move it above the first [table]",
                option=key,
            )


def _names_file(text: str) -> bool:
    return "/" in text or text.endswith((".py", ".toml"))


def _read_environment(layers: _Layers, env: Mapping[str, str]) -> None:
    by_variable = {option.env: option for option in OPTIONS.values()}
    for variable, text in env.items():
        if not variable.startswith("RT_") or variable in ENVIRONMENT:
            continue
        if variable not in by_variable:
            near = nearest(variable, [*by_variable, *ENVIRONMENT], cutoff=_NEAR)
            hint = near or "; remove it; `rt config` lists the known ones"
            raise ConfigError(f"{variable}: unknown variable{hint}", variable=variable)
        option = by_variable[variable]
        raw: object = text
        if option.kind == "list":
            raw = [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
        layers.put(option, raw, variable, text=True)
