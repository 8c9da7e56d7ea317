"""Command-line flags for the options.

A command names its options and receives the loaded configuration. Values go to `rt.config` as text,
so an invalid flag and an invalid line of rt.toml have the same error message.
"""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from rt import config
from rt.client import completers
from rt.errors import ConfigError
from rt.terminal.number import Number

if TYPE_CHECKING:
    from rt.catalog import Catalog

DEBUG = "rt.debug"
"""Key of the click context's `meta` for whether to print tracebacks."""

_EVERY_VERB = ("instance", "debug")
_OPTION_METAVARS = {"dev_name": "NAME:UID", "instance": "NAME"}
_TYPE_METAVARS = {
    "switch": None,
    "number": "NUMBER",
    "text": "TEXT",
    "choice": None,
    "list": "TEXT",
    "map": "NAME:VALUE",
}

Function = Callable[..., Any]


class Loader(Protocol):
    """A function that loads the configuration."""

    def __call__(self, *, with_overrides: bool = True, only_flags: bool = False) -> config.Loaded:
        """Load the configuration.

        Args:
            with_overrides: Whether the options set by `rt config set` and `set_option` count.
            only_flags: Whether only the flags and RT_INSTANCE count.
        """


def click_options(
    *names: str, load: bool = True, ignore_file: bool = False
) -> Callable[[Function], Function]:
    """Add `--config` and the flags of options to a command.

    The command receives `loaded`, a `rt.config.Loaded`, in place of the flags.

    Args:
        names: The options that the command uses; all of them if none is named. `instance` and
            `debug` are always included.
        ignore_file: Whether to ignore rt.toml, use only variables and flags, and omit `--config`.
        load: Whether to load the configuration before the call. If False, `loaded` is a `Loader`.
    """
    chosen = [name for name in config.OPTIONS if not names or name in {*names, *_EVERY_VERB}]
    unknown = set(names) - set(chosen)
    if unknown:
        raise LookupError(f"no option is named {', '.join(sorted(unknown))}")

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        @click.pass_context
        def command(context: click.Context, /, **arguments: Any) -> Any:
            file = arguments.pop("config_file", None)
            flags = {name: arguments.pop(name) for name in chosen}

            def loader(*, with_overrides: bool = True, only_flags: bool = False) -> config.Loaded:
                root = context.find_root()
                inherited = {
                    name: value for name, value in root.params.items() if name in config.OPTIONS
                }
                given = {name: value for name, value in flags.items() if value not in {None, ()}}
                where: dict[str, Any] = {"file": file, "with_overrides": with_overrides}
                if ignore_file or only_flags:
                    env = _usable_instance() if only_flags else {**os.environ, "RT_CONFIG": ""}
                    where = {"env": env, "cwd": Path(os.devnull), "with_overrides": False}
                loaded = config.load(flags={**inherited, **given}, **where)
                context.meta[DEBUG] = loaded.config.debug
                return loaded

            return function(loaded=loader() if load else loader, **arguments)

        decorated: Function = command
        for name in reversed(chosen):
            decorated = _flag(config.OPTIONS[name])(decorated)
        if ignore_file:
            return decorated
        return click.option(
            "--config",
            "config_file",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="File to read instead of ./rt.toml.",
        )(decorated)

    return decorate


def json_option(text: str) -> Callable[[Function], Function]:
    """Return the flag `--json` with a help text; the command receives `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def timeout_option(
    default: float, text: str, most: float = math.inf
) -> Callable[[Function], Function]:
    """Return the flag `--timeout` with a default (s), a help text and a maximum (s)."""
    return click.option(
        "--timeout",
        type=Number(above=0, most=most),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


def _usable_instance() -> dict[str, str]:
    """Return an environment with RT_INSTANCE, or an empty one if it is not a valid name."""
    option = config.OPTIONS["instance"]
    env = {option.env: os.environ[option.env]} if option.env in os.environ else {}
    try:
        config.load(env=env, cwd=Path(os.devnull), with_overrides=False)
    except ConfigError:
        return {}
    return env


def _flag(option: config.Option) -> Callable[[Function], Function]:
    text = f"{option.meaning[:1].upper()}{option.meaning[1:]}"
    if option.kind == "switch":
        return click.option(
            f"{option.flag}/--no-{option.flag[2:]}", option.name, default=None, help=f"{text}."
        )
    repeatable = option.kind in {"list", "map"}
    default = f"{text_of(option.default) or 'none'} {option.unit}".strip()
    return click.option(
        option.flag,
        option.name,
        multiple=repeatable,
        default=None,
        shell_complete=completers.choices(option),
        metavar=_OPTION_METAVARS.get(option.name)
        or "|".join(option.choices)
        or _TYPE_METAVARS[option.kind],
        help=f"{text}{' (repeatable)' if repeatable else ''}. [{default}]",
    )


def catalog_and_names(options: config.Config) -> tuple["Catalog", dict[str, int]]:
    """Return the catalog of the options, and the UIDs of dev_name by name.

    Raises:
        CatalogError: The catalog is invalid.
    """
    from rt import catalog

    known = catalog.load(Path(options.dev_catalog) if options.dev_catalog else None)
    return known, {name: int(uid) for name, uid in options.dev_name.items()}


def text_of(value: object) -> str:
    """Return an option's value as a user writes it."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return ", ".join(f"{key}:{text_of(each)}" for key, each in value.items())
        case tuple() | list():
            return ", ".join(map(text_of, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)
