"""How a command reaches a robot: its options, the connection, and the names of devices and methods."""
