"""Smart Device messages as JSON and as hexadecimal, for people and scripts."""
