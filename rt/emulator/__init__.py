"""Emulated Smart Devices: firmware, simulated sensors, fault injection, and the lines that they are on."""
