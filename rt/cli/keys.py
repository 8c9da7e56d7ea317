"""`rt keys`: who may drive this robot from another computer."""

import json
import os
from pathlib import Path

import click

from rt.access.key_directory import BUNDLE_SUFFIX, find_project, key_directory
from rt.access.keyring import Keyring
from rt.client.options import click_options
from rt.config import Loaded, nearest
from rt.errors import ConfigError

HELP = """\
Say who may drive this robot from another computer.

Each driver's station has a key of its own: one file, which is made here and carried there. A robot
that runs heeds a new key, and a revoked one, within a second.

\b
rt keys new blue --output ~/blue.rtkey            writes the file: move it to the station
rt run --bind 0.0.0.0                             opens the robot to stations with a key
rt call --robot tcp://HOST:6000 --key blue.rtkey  there: a call from the station
rt keys revoke blue                               the station is out
"""


@click.group(help=HELP, subcommand_metavar="VERB ...")
def command() -> None:
    """Say who may drive this robot from another computer."""


@command.command()
@click.argument("name")
@click.option("--output", metavar="FILE", help="File to write, `-` for stdout. [NAME.rtkey]")
@click_options("instance", "keys_dir")
def new(loaded: Loaded, name: str, output: str | None) -> None:
    """Make a key for the station NAME, and write the file that it needs.

    The file is not kept here: if it is lost, revoke the key and make another one.
    """
    ring = _ring(loaded)
    path = Path(output or f"{name}{BUNDLE_SUFFIX}")
    if output != "-" and os.path.lexists(path):  # unlike `Path.exists`, it bears any name
        raise ConfigError(f"{path} exists; choose another file with --output", path=str(path))
    bundle = ring.new(name)
    if output == "-":
        click.echo(bundle.text(), nl=False)
        return
    try:
        bundle.write(path)
    except ConfigError:
        ring.revoke(name)
        raise
    click.echo(
        f"{path}: move it to the station by USB stick or scp, not by mail or chat, and leave no copy here: it drives the robot"
    )
    if project := find_project(path):
        click.echo(
            f"rt: {path} lies in the project's folder {project}: remove it before that is copied or committed",
            err=True,
        )


@command.command("list")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON list of name, public key and when it was made.",
)
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
                f"no station has a key in {ring.directory}: `rt keys new NAME` makes one", err=True
            )
    for problem in ring.problems:
        click.echo(f"rt: {problem}", err=True)


@command.command()
@click.argument("name")
@click_options("instance", "keys_dir")
def revoke(loaded: Loaded, name: str) -> None:
    """Make the key of the station NAME useless, at once and for good."""
    ring = _ring(loaded)
    try:
        ring.revoke(name)
    except KeyError:
        hint = nearest(name, ring.stations) or "; `rt keys list` shows them"
        raise ConfigError(f"no station {name!r} has a key{hint}", name=name) from None
    click.echo(f"{name} is revoked: a robot that runs throws it out within a second")


def _ring(loaded: Loaded) -> Keyring:
    place = key_directory(loaded.config.keys_dir, loaded.config.instance)
    if place.hint:
        click.echo(f"rt: {place.hint}", err=True)
    ring = Keyring(place.directory)
    ring.refresh()
    return ring
