"""Wire formats: Smart Device frames and messages, RPC envelopes, log events and datagrams.

Invariant: the modules of this package do no I/O, so tests need only bytes. Other packages add
    sockets, files and tasks.
"""
