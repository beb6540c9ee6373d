"""The cache: found again when nothing changed, made again when anything did or the file is damaged."""

import json
import os

import pytest
import torch

from training import inputs
from training.inputs import cache_path, fill_cache, is_cached
from utils.errors import UserError
from utils.tensor_files import read_metadata, read_tensors

MADE_FROM = {"kind": "latents", "vae": "abc", "clip": "def", "size": (64, 48), "frames": (0, 3, 6)}


def fill(folder, made_from=MADE_FROM, value: float = 1.0):
    """Return (path, how often the tensors were made)."""
    made = []
    path = fill_cache(cache_path(folder, made_from), made_from,
                      lambda: made.append(0) or {"mean": torch.full((2, 3), value)})
    return path, len(made)


def test_second_look_finds_what_the_first_made(tmp_path):
    assert fill(tmp_path, value=1)[1] == 1
    path, times = fill(tmp_path, value=2)
    assert times == 0 and torch.equal(read_tensors(path)["mean"], torch.ones(2, 3))


@pytest.mark.parametrize("change", [{"vae": "xyz"}, {"clip": "xyz"}, {"size": (48, 64)},
                                    {"frames": (0, 3, 7)}, {"frames": (0, 3)}, {"kind": "prompt"},
                                    {"more": 1}])
def test_any_change_of_what_made_it_misses(tmp_path, change):
    fill(tmp_path)
    assert fill(tmp_path, {**MADE_FROM, **change})[1] == 1


def test_change_of_meaning_misses(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(inputs, "VERSION", inputs.VERSION + 1)
    assert fill(tmp_path)[1] == 1


def test_order_of_what_made_it_does_not_matter(tmp_path):
    assert cache_path(tmp_path, MADE_FROM) == cache_path(tmp_path, dict(reversed(MADE_FROM.items())))


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-3],
                                    lambda content: b"text"])
def test_damaged_file_is_made_again(tmp_path, damage):
    path, _ = fill(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert not is_cached(path)
    assert fill(tmp_path)[1] == 1 and is_cached(path)


def test_file_says_what_made_it(tmp_path):
    path, _ = fill(tmp_path)
    assert json.loads(read_metadata(path)["made_from"]) == json.loads(json.dumps(MADE_FROM))


def test_failure_while_making_leaves_nothing(tmp_path):
    def broken():
        raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        fill_cache(cache_path(tmp_path, MADE_FROM), MADE_FROM, broken)
    assert os.listdir(tmp_path) == []


def test_full_disk_while_caching_is_named(tmp_path, full_disk):
    with full_disk(), pytest.raises(UserError, match="safetensors: could not be written .* are free there"):
        fill_cache(cache_path(tmp_path, MADE_FROM), MADE_FROM, lambda: {"mean": torch.zeros(5000)})
    assert os.listdir(tmp_path) == []
