"""Instances, the robots of one computer: names, directories, locks, and stale files."""

from rt.instance.directory import MAX_DIRECTORY, Holder, Instance, is_same_file, running
from rt.instance.stale_files import ENV_DIRECTORY

__all__ = ["ENV_DIRECTORY", "MAX_DIRECTORY", "Holder", "Instance", "is_same_file", "running"]
