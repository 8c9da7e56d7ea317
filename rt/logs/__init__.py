"""The log of a robot: the hub that publishes it, its files, and how commands read both."""
