"""Keys: who may reach the robot from the network, in files that only its owner can read."""

from rt.keys.bundle import Bundle
from rt.keys.place import KeyPlace, key_place
from rt.keys.ring import KeyPair, Keyring, Station

__all__ = ["Bundle", "KeyPair", "KeyPlace", "Keyring", "Station", "key_place"]
