"""Output, tables, error messages and signal handling shared by all commands."""
