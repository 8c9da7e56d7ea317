"""Links: the line to one Smart Device, over a serial port, TCP or memory."""
