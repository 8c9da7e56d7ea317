"""Access control: keys and key files, users of loopback peers, and connection limits.

Imports nothing, so that a command that only reads a key file does not load ZMQ.
"""
