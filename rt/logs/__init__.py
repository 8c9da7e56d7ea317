"""The log of a whole robot: the hub that publishes it, the file that keeps it, and how commands read both."""
