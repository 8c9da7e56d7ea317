"""The API that team code sees, with types: Robot, Gamepad, Actions, Field and Alliance."""

from rt.team.api import NAMES, Action, Actions, Alliance, Field, Gamepad, Mode, Robot

__all__ = ["NAMES", "Action", "Actions", "Alliance", "Field", "Gamepad", "Mode", "Robot"]
