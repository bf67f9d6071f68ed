"""The commands of the shell, one module each: `add_parser` and `run`."""
