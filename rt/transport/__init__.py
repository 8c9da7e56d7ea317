"""ZMQ sockets on trio, their addresses and their counters."""
