"""One seed for each source of randomness, so that none shifts when another draws more numbers."""

import hashlib


def derive(seed: int, purpose: str) -> int:
    """A seed of 31 bits for `purpose` (init, order, dropout), the same on every machine."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
