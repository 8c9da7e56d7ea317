"""Serial ports of this machine: which ones count, when they appear, and why one cannot be opened.

Opening a port resets the board, so that only `ports` opens one.
"""
