"""Serial ports of this machine: which are used, when they appear, and why one cannot be opened.

Only `ports` opens a port, because opening one resets its board.
"""
