"""The two-stream network for fine-grained classes (Shroff 2020): trunks, heads, losses, counts, files."""
