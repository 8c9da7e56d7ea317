"""The emulated robot of `rt demo`: its driver and its program."""
