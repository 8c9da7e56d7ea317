"""The `rt keys` commands: the keys of driver's stations."""

import json
import os
from pathlib import Path

import click

from rt.access.key_directory import STATION_KEY_SUFFIX, find_project, key_directory
from rt.access.keyring import Keyring
from rt.client.option_flags import click_options, json_option
from rt.config import Loaded
from rt.errors import ConfigError
from rt.text import nearest

HELP = """\
Manage the keys of driver's stations.

A driver's station on another computer needs its own key: a file that this command makes and you
move to the station. A running robot applies new and revoked keys within a second.

\b
rt keys new blue --output ~/blue.rtkey            make a key; move the file to the station
rt run --bind 0.0.0.0                             open the robot to stations with a key
rt call --robot tcp://HOST:6000 --key blue.rtkey  call the robot from the station
rt keys revoke blue                               exclude the station
"""


@click.group(help=HELP, subcommand_metavar="VERB ...")
def command() -> None:
    """Manage the keys of driver's stations."""


@command.command()
@click.argument("name")
@click.option("--output", metavar="FILE", help="File to write, `-` for stdout. [NAME.rtkey]")
@click_options("instance", "keys_dir")
def new(loaded: Loaded, name: str, output: str | None) -> None:
    """Make a key for the station NAME and write the key file.

    The robot keeps no copy of the file. If the file is lost, revoke the key and make another one.
    """
    ring = _ring(loaded)
    path = Path(output or f"{name}{STATION_KEY_SUFFIX}")
    if output != "-" and os.path.lexists(path):  # unlike `Path.exists`, it accepts any name
        raise ConfigError(f"{path} already exists; use another file with --output", path=str(path))
    station_key = ring.new(name)
    if output == "-":
        click.echo(station_key.text(), nl=False)
        return
    try:
        station_key.write(path)
    except ConfigError:
        ring.revoke(name)
        raise
    click.echo(
        f"wrote {path}; move it to the station by USB stick or scp, not by mail or chat, and keep"
        " no copy here, because this key can drive the robot"
    )
    if project := find_project(path):
        click.echo(
            f"rt: {path} is in the project {project};"
            " remove it before you copy or commit the project",
            err=True,
        )


@command.command("list")
@json_option("Print name, public key and time of creation as a JSON list.")
@click_options("instance", "keys_dir")
def list_keys(loaded: Loaded, as_json: bool) -> None:
    """List the stations that have a key."""
    ring = _ring(loaded)
    if as_json:
        rows = [
            {"name": each.name, "public": each.public, "made": each.made}
            for each in ring.stations.values()
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        width = max(map(len, ring.stations), default=0)
        for each in ring.stations.values():
            click.echo(f"{each.name:<{width}}  made {each.made}  public key {each.public}")
        if not ring.stations and not ring.problems:
            click.echo(
                f"no station has a key in {ring.directory}; `rt keys new NAME` makes one", err=True
            )
    for problem in ring.problems:
        click.echo(f"rt: {problem}", err=True)


@command.command()
@click.argument("name")
@click_options("instance", "keys_dir")
def revoke(loaded: Loaded, name: str) -> None:
    """Revoke the key of the station NAME permanently."""
    ring = _ring(loaded)
    try:
        ring.revoke(name)
    except KeyError:
        hint = nearest(name, ring.stations) or "; see `rt keys list`"
        raise ConfigError(f"no key for a station {name!r}{hint}", name=name) from None
    click.echo(f"revoked {name}; a running robot disconnects it within a second")


def _ring(loaded: Loaded) -> Keyring:
    place = key_directory(loaded.config.keys_dir, loaded.config.instance)
    if place.hint:
        click.echo(f"rt: {place.hint}", err=True)
    ring = Keyring(place.directory)
    ring.refresh()
    return ring
