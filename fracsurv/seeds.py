"""One seed for everything that is drawn, derived from the run's."""

import hashlib


def derive_seed(*parts: object) -> int:
    """A seed from (run seed, experiment, fold, α), the same on every machine; 63 bits."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
