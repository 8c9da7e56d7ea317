"""Serial ports of the system: which of them are Smart Devices', and why one cannot be opened.

The device process and the doctor ask the same questions, so the answers are here, below both. A port is never opened here:
opening it resets the board.
"""

from rt.ports.filter import PortFilter, Seen
from rt.ports.trouble import Holder, access_remedy, held_remedy, holders

__all__ = ["Holder", "PortFilter", "Seen", "access_remedy", "held_remedy", "holders"]
