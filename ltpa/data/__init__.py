"""Datasets: what is declared, how it is made or read, prepared arrays on disk, and preprocessing."""
