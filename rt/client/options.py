"""Flags made from the options: a verb names those that it heeds and is given the loaded configuration.

Values are handed to `rt.config` as text, so that a bad flag is told in the same words as a bad line
of rt.toml.
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
"""Where the context keeps whether tracebacks are wanted."""

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
    """Loads the configuration when it is called."""

    def __call__(self, *, with_overrides: bool = True, only_flags: bool = False) -> config.Loaded:
        """Load it, perhaps without what is kept of options that were set, or from the flags and RT_INSTANCE alone."""


def click_options(
    *names: str, load: bool = True, ignore_file: bool = False
) -> Callable[[Function], Function]:
    """Give a verb `--config` and the flags of some options, and hand it the loaded configuration.

    The verb's function is called with `loaded`, a `rt.config.Loaded`, in place of the flags.

    Args:
        names: The options that the verb heeds, all of them when none is named; `instance` and
            `debug` are always there.
        ignore_file: Whether rt.toml is left alone: only variables and flags count, and there is no
            `--config`.
        load: False to hand over `loaded` as a function that loads when it is called, with
            `with_overrides=False` without what is kept.
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
    """RT_INSTANCE, as an environment, if it names an instance."""
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
    return click.option(
        option.flag,
        option.name,
        multiple=repeatable,
        default=None,
        shell_complete=completers.choices(option),
        metavar=_OPTION_METAVARS.get(option.name)
        or "|".join(option.choices)
        or _TYPE_METAVARS[option.kind],
        help=f"{text}{' (repeatable)' if repeatable else ''}. [{f'{_default(option)} {option.unit}'.strip()}]",
    )


def _default(option: config.Option) -> str:
    return text_of(option.default) or "none"


def text_of(value: object) -> str:
    """Return an option's value as a person writes it."""
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
