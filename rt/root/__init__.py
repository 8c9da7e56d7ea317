"""The composition root of `rt run`, and the entry points of its children."""
