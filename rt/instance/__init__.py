"""One robot among those that a computer may run: its name, its directory, its holder, and what a killed one left."""

from rt.instance.directory import MAX_DIRECTORY, Holder, Instance, is_same_file, running
from rt.instance.stale_files import ENV_DIRECTORY

__all__ = ["ENV_DIRECTORY", "MAX_DIRECTORY", "Holder", "Instance", "is_same_file", "running"]
