"""Seeds are a fixed function of what they are for."""

import subprocess
import sys

import torch

from tests.conftest import ROOT
from training.windows import generator_for, seed_for


def test_seed_is_the_same_in_every_process():
    code = "from training.windows import seed_for; print(seed_for('noise', 64, 3, 0))"
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, cwd=ROOT, env={"PYTHONHASHSEED": "1"}, capture_output=True, text=True,
                           check=True)
    assert int(other.stdout) == seed_for("noise", 64, 3, 0)


def test_recorded_seed_has_not_changed():
    # changing it would change every run that is resumed or repeated
    assert seed_for("noise", 64, 3, 0) == 5218008142481184782


def test_neighbouring_keys_have_seeds_of_their_own():
    keys = [(what, seed, step, rank) for what in ("noise", "order") for seed in range(4) for step in range(50)
            for rank in range(4)]
    assert len({seed_for(*key) for key in keys}) == len(keys)


def test_key_cannot_be_read_in_two_ways():
    assert len({seed_for(*key) for key in [(1, 23), (12, 3), (123,), ("1", 23), ("1", "23"), (1, 2, 3)]}) == 6


def test_seed_fits_every_generator():
    assert all(0 <= seed_for("a", number) < 2**63 for number in range(1000))


def test_generator_is_on_the_cpu_and_repeats():
    assert generator_for("a", 1).device.type == "cpu"
    first, again, other = (torch.randn(3, generator=generator_for("a", number)) for number in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
