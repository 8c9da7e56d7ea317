"""Command-line flags for the options.

A command names its options and receives the loaded configuration. Values go to `rt.config` as text,
so an invalid flag and an invalid line of rt.toml have the same error message.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import click

from rt import config
from rt.client import completers
from rt.errors import ConfigError

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
                if ignore_file:
                    env = {name: value for name, value in os.environ.items() if name != "RT_CONFIG"}
                    where = {"env": env, "cwd": Path(os.devnull), "with_overrides": False}
                if only_flags:
                    where = {
                        "env": _usable_instance(),
                        "cwd": Path(os.devnull),
                        "with_overrides": False,
                    }
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
    default = f"{_default(option)} {option.unit}".strip()
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


def _default(option: config.Option) -> str:
    return text_of(option.default) or "none"


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
