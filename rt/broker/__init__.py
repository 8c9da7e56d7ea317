"""The broker: tasks of the root between the driver's station and the processes of the robot."""

from rt.broker.access import Access
from rt.broker.gamepads import GamepadFeed
from rt.broker.handler import Broker
from rt.broker.serving import serve
from rt.broker.updates import UpdatePublisher

__all__ = ["Access", "Broker", "GamepadFeed", "UpdatePublisher", "serve"]
