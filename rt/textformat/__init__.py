"""The text format of Smart Device messages: JSON and hexadecimal, for people and scripts."""
