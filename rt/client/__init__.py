"""The client side of commands: flags, connections, device and method names, completions."""
