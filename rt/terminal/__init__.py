"""What the verbs share on a terminal: output, tables, error messages and signals."""
