"""Protocols: every way in which trained networks are measured, one file each."""
