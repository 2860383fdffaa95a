"""The seeds of trials, derived from the seed of their study."""

from __future__ import annotations

import hashlib


def seed_of_trial(study_seed: int, number: int) -> int:
    """Return 63 bits that differ for every study seed and trial number.

    A cryptographic hash, unlike `hash()`, gives the same value in every process and Python version.
    """
    digest = hashlib.blake2b(f"{study_seed}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
