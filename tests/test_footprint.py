"""The memory of a step as counted by hand is what torch keeps of it."""

import json

import pytest
import torch

from models import fast, footprint
from models.base import load_base
from models.base_folder import tensor_sizes
from models.footprint import (
    BYTES,
    NUM_TOKENS,
    Block,
    kept_of_blocks,
    peak_of_step,
    unet_blocks,
)
from models.optimization import hold_frozen_weights_in, select_parameters
from models.recompute import recompute_activations
from models.sampling import COMPUTE_DTYPES
from models.tunable import select_tunable, union

SHAPE = (2, 4, 16, 8)   # clips, frames, and the sides in latent cells


def kept_bytes(unet, precision: str) -> int:
    """What torch keeps between a forward and a backward pass, weights left out."""
    weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage   # kept alive, so that no other takes its identity
        return tensor

    batch_size, *frames_and_sides = SHAPE
    latents = torch.randn(batch_size, 4, *frames_and_sides)
    embeds = torch.randn(batch_size, NUM_TOKENS, 32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), \
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        unet(latents, torch.zeros(batch_size, dtype=torch.int64), embeds)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("groups", [["cross", "temporal", "temp_convs"], ["all"], ["temp_convs"]])
@pytest.mark.parametrize("precision, recompute", [("no", False), ("no", True), ("bf16", False)])
def test_count_of_what_is_kept_is_within_five_per_cent(tiny_base, groups, precision, recompute):
    unet = load_base(str(tiny_base)).unet.train()
    for module in unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    names = union(select_tunable(dict(unet.named_parameters()), groups))
    select_parameters(unet, names)
    hold_frozen_weights_in(unet, COMPUTE_DTYPES[precision])
    if recompute:
        recompute_activations(unet)
    config = json.loads((tiny_base / "unet" / "config.json").read_text())
    sizes = {name: size for name, size in tensor_sizes(tiny_base, "unet").items() if name in names}
    blocks = list(unet_blocks(config, set(names), *SHAPE[:2], SHAPE[2:], BYTES[precision], on_cpu=True))
    counted = sum(kept_of_blocks(blocks, sizes, BYTES[precision], recompute))
    assert counted == pytest.approx(kept_bytes(unet, precision), rel=0.05)


def test_every_trained_tensor_belongs_to_a_block(tiny_base):
    config = json.loads((tiny_base / "unet" / "config.json").read_text())
    names = union(select_tunable(tensor_sizes(tiny_base, "unet"), ["cross", "temporal", "temp_convs"]))
    blocks = unet_blocks(config, set(names), *SHAPE[:2], SHAPE[2:], 4, on_cpu=True)
    prefixes = tuple(block.name for block in blocks)
    assert [name for name in names if not name.startswith(prefixes)] == []


def test_peak_is_the_largest_sum_on_the_way():
    blocks = [Block("a.", 1, 10, 0), Block("b.", 1, 100, 5), Block("c.", 1, 20, 0)]
    sizes = {"a.w": 1, "b.w": 1, "c.w": 100}
    # in c: what all three keep, and the gradients of c; in b there would be 115 and 404
    assert peak_of_step(blocks, sizes, 4, recompute=False) == (130, 400)
    # recomputed, in b: what enters a and b, all of b again, what is under way, the gradients of b and c
    assert peak_of_step(blocks, sizes, 4, recompute=True) == (107, 404)


def test_limit_of_plain_attention_is_one_number():
    assert footprint.MOST_KEYS == fast.MOST_KEYS
