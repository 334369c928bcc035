"""Random streams that depend on what they are for, and on nothing else."""

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, for example `derive(0, "augment", epoch)`.

    Streams of different purposes are independent, and adding one never shifts another.
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
