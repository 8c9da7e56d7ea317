"""The brake: a small process that disables devices when the device process dies or hangs.

It does so even if the root dies at the same time. It imports only the standard library, so that it
starts quickly and stays small.
"""
