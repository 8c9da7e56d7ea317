"""Emulated Smart Devices: firmware, simulated sensors, fault injection, and their lines."""
