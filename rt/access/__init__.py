"""Who may reach the robot: keys and key files, the users of loopback peers, and the connections that may stay.

Nothing is imported here, so that a command that only reads a key file does not load ZMQ.
"""
