"""Output, tables and error messages shared by all commands."""
