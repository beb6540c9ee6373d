"""Randomness as a pure function of where it is used, so that resuming needs no saved state.

Every random choice of a run is drawn from a generator seeded by (seed, what for, step, rank, ...). Source of
the habit: NVlabs/edm2.
"""

import hashlib

import torch


def seed_for(*key: int | str) -> int:
    """Return a 63-bit seed that is a fixed function of `key` and nothing else."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator_for(*key: int | str) -> torch.Generator:
    """Return a CPU generator for `key`; noise is drawn on the CPU so that it is the same on every device."""
    return torch.Generator("cpu").manual_seed(seed_for(*key))
