"""The brake: a small process that disables devices when the device process dies or hangs, also when the root dies with it.

It imports nothing but the standard library, so that it starts soon and stays small.
"""
