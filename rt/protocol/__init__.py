"""What travels: frames, messages, call envelopes and datagrams as bytes in, values out.

The modules of this room are pure. They know neither tasks nor sockets nor files, so that each can
be shown right with bytes alone; the rooms above wrap them in thin shells of I/O.
"""
