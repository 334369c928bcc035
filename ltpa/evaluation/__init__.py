"""Evaluation protocols: networks and arrays in, numbers out. Nothing here reads or writes a file."""
