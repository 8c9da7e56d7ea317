"""rt runs a robot: its processes, its Smart Devices and its team's code."""

__version__ = "0.1.0"
