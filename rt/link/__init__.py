"""Links: the line to one Smart Device, over a serial port, a TCP connection or memory."""
