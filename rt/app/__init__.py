"""The application object of an rt process, and the settings of a child."""

from rt.app.application import Application
from rt.app.settings import ChildSettings

__all__ = ["Application", "ChildSettings"]
