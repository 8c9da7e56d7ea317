"""The `rt config set` and `rt config unset` commands, which change the overrides of a robot."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rt import catalog
from rt.access.key_directory import require_network_keys
from rt.client import completers
from rt.client.option_flags import Loader, click_options, text_of
from rt.config import Loaded, change_overrides, clear_overrides, find_option, overrides
from rt.config.network import KEYED, KEYLESS
from rt.config.option_info import OPTIONS, Option
from rt.config.value import check_entry, check_value, parse_pairs
from rt.errors import ConfigError

_SET, _UNSET = "rt config set", "rt config unset"


@click.command("set", short_help="Set an option for the next start.")
@click.argument("name", shell_complete=completers.options)
@click.argument(
    "values", nargs=-1, required=True, metavar="VALUE...", shell_complete=completers.values
)
@click_options("instance", load=False)
def set_command(name: str, values: tuple[str, ...], loaded: Loader) -> None:
    """Set the option NAME. The value takes effect at the next start.

    The value is stored for this robot, outside of rt.toml, and overrides rt.toml. `rt call
    set_option` does the same from another computer. A list takes several values. A map takes
    entries, as in `rt config set dev_name arm:47252153627919119984829` or `rt config set
    dev_name.arm 47252153627919119984829`.
    """
    name, _, key = name.partition(".")
    option = find_option(name, _SET)
    if name == "instance":
        raise ConfigError(
            f"{_SET}: instance selects where values are stored; set it in rt.toml or by --instance",
            option=name,
        )
    if key and option.kind != "map":
        raise ConfigError(f"{_SET}: {name} has no entries", option=name)
    value = _value(option, key, values)
    if name == "dev_catalog" and value:
        catalog.load(Path(value))  # with an invalid one the robot would not start
    _change(loaded, {name: value})
    now = loaded()
    _print_options(now, [name])
    if name in {"bind", "insecure", *KEYED, *KEYLESS}:
        _warn_without_keys(now)


@click.command("unset", short_help="Undo what `set` changed.")
@click.argument("names", nargs=-1, metavar="NAME...", shell_complete=completers.options)
@click.option(
    "--all", "everything", is_flag=True, help="Remove all values, also unknown or invalid ones."
)
@click_options("instance", load=False)
def unset_command(names: tuple[str, ...], everything: bool, loaded: Loader) -> None:
    """Remove values that `rt config set` or `rt call set_option` stored.

    The value in rt.toml or the default takes effect again at the next start. NAME is an option, or
    an entry of a map, such as dev_name.arm.
    """
    if everything == bool(names):
        raise click.UsageError(
            "name the options to unset, or use --all", click.get_current_context()
        )
    directory = _directory(loaded(with_overrides=False))
    if everything:
        clear_overrides(directory)
        click.echo("all values removed")
        return
    before = overrides.read(directory)
    changes: dict[str, Any] = {}
    for each in names:
        name, _, key = each.partition(".")
        if name not in before:
            find_option(name, _UNSET)  # another version of rt may have stored it
        if key and isinstance(changes.setdefault(name, {}), dict):
            changes[name][key] = None
        elif not key:
            changes[name] = None
    _change(loaded, changes)
    _print_options(loaded(), list(dict.fromkeys(name for name in changes if name in OPTIONS)))


def _value(option: Option, key: str, values: Sequence[str]) -> Any:
    """Return the typed value to store for some words, as in rt.toml."""
    if option.kind == "map":
        given = {key: " ".join(values)} if key else parse_pairs(option, values, _SET)
        return {
            name: check_entry(option, name, each, _SET, text=True) for name, each in given.items()
        }
    if option.kind == "list":
        return list(check_value(option, values, _SET, text=True))
    if len(values) > 1:
        raise ConfigError(
            f"{_SET}: {option.name} takes one value; quote a value with spaces", option=option.name
        )
    return check_value(option, values[0], _SET, text=True)


def _change(loaded: Loader, changes: dict[str, Any]) -> None:
    base = loaded(with_overrides=False)
    change_overrides(_directory(base), base.config, changes)


def _directory(base: Loaded) -> Path | None:
    return overrides.state_directory(base.config.instance, os.environ)


def _warn_without_keys(now: Loaded) -> None:
    """Warn if the robot would not start, because it is open to the network and has no keys."""
    try:
        require_network_keys(now.config.resolved(Path("/")))
    except ConfigError as error:
        click.echo(f"rt: the next `rt run` will refuse to start: {error.message}", err=True)


def _print_options(now: Loaded, names: Sequence[str]) -> None:
    for name in names:
        option, origin = OPTIONS[name], now.origins[name]
        value = f"{text_of(getattr(now.config, name))} {option.unit}".strip() or "empty"
        click.echo(f"{name}: {value} (from {origin}); takes effect at the next start")
