"""One process of rt: what it opens and closes, and what a child is told when it is started."""

from rt.app.application import Application
from rt.app.settings import ChildSettings

__all__ = ["Application", "ChildSettings"]
