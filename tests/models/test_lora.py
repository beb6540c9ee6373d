"""Low-rank updates: which layers get them, what they compute, their file, and stock diffusers with it."""

import math
import re

import pytest
import torch
from diffusers import UNet3DConditionModel, UNetMotionModel
from safetensors.torch import load_file

from models.base import load_base
from models.base_parts import unet_files
from models.fast import use_fast_forms
from models.lora import (
    add_trainable_lora,
    apply_lora,
    base_shapes,
    lora_layers,
    merge_loras,
)
from models.lora_files import (
    Lora,
    check_lora,
    lora_weights,
    num_low_rank,
    squared_changes,
)
from models.motion_weights import (
    apply_motion,
    relative_change,
)
from models.recompute import recompute_activations
from models.tunable import select_tunable, union
from tests.low_rank import (
    ALPHA_OF_FILE,
    EMBEDS,
    GROUPS,
    INPUT,
    drawn,
    info,
    predicted,
    with_lora,
)


@pytest.fixture
def base(tiny_base):
    return load_base(str(tiny_base))


# ------------------------------------------------------------------------------ the layers and their matrices

def zeroscope_shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        unet = UNet3DConditionModel(sample_size=32, cross_attention_dim=1024, attention_head_dim=64)
    return base_shapes(unet)


def test_sizes_on_zeroscope_are_those_of_the_readme():
    shapes = zeroscope_shapes()
    names = union(select_tunable(shapes, GROUPS))
    megabytes = {rank: sum(num_low_rank(shapes, names, rank).values()) * 2 / 1e6 for rank in (16, 32, 64)}
    assert len(shapes) == 1480 and len(names) == 826 and len(lora_weights(shapes, names)) == 324
    assert {rank: round(size) for rank, size in megabytes.items()} == {16: 26, 32: 53, 64: 105}


def test_every_linear_and_convolution_of_the_groups_is_in_and_nothing_else(base):
    names = union(select_tunable(base_shapes(base.unet), GROUPS))
    kinds = {f"{name}.weight": type(module).__name__ for name, module in base.unet.named_modules()}
    wanted = [name for name in names if kinds.get(name) in ("Linear", "Conv3d", "Conv2d")]
    add_trainable_lora(base.unet, names, Lora(2, 2), drawn)
    layers = set(lora_layers(base.unet))
    found = [f"{name}.weight" for name, module in base.unet.named_modules() if module in layers]
    assert sorted(found) == wanted and len(wanted) > 90


def test_projections_that_diffusers_calls_with_a_keyword_are_left_out():
    with torch.device("meta"):
        shapes = base_shapes(UNetMotionModel())
    weights = lora_weights(shapes, [name for name in shapes if "motion_modules" in name])
    assert len(weights) == 20 * 10 + 10   # of each module: two attentions of four, and two more
    assert not [name for name in weights if re.search(r"motion_modules\.\d+\.proj_", name)]


def test_group_without_such_a_layer_is_said(base):
    shapes = base_shapes(base.unet)
    (problem,) = check_lora(shapes, select_tunable(shapes, ["cross", "norm1"]))
    assert problem.startswith("lora_rank: 'norm1' of trainable_modules has no Linear layer")


def test_start_is_the_base_and_a_function_of_the_layer_alone(tiny_base):
    plain, unets = predicted(load_base(str(tiny_base)).unet), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        unets.append(load_base(str(tiny_base)).unet)
        before = torch.get_rng_state()
        matrices = add_trainable_lora(unets[-1], union(select_tunable(base_shapes(unets[-1]), GROUPS)),
                                      Lora(4, 4), drawn)
        assert torch.equal(torch.get_rng_state(), before)   # nothing else is drawn
        assert torch.equal(predicted(unets[-1].eval()), plain)
        assert {tensor.dtype for tensor in matrices.values()} == {torch.float32}
    first, second = (dict(unet.named_parameters()) for unet in unets)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len({tensor.flatten()[0].item() for name, tensor in first.items() if ".lora_A." in name}) > 90


def test_a_is_drawn_as_peft_draws_it(base):
    names = union(select_tunable(base_shapes(base.unet), GROUPS))
    matrices = add_trainable_lora(base.unet, names, Lora(4, 4), drawn)
    for name, matrix in matrices.items():
        limit = 1 / math.sqrt(matrix[0].numel())   # kaiming_uniform_ with a = sqrt(5)
        if ".lora_A." in name:
            assert 0.7 * limit < matrix.abs().max() <= limit


def test_only_the_matrices_train(base):
    matrices = with_lora(base.unet)
    training = {name for name, parameter in base.unet.named_parameters() if parameter.requires_grad}
    assert training == set(matrices)


# ------------------------------------------------------------------------------------------ what they compute

def plain_and_fast(tiny_base):
    plain, fast = (UNet3DConditionModel.from_pretrained(tiny_base, subfolder="unet").eval() for _ in range(2))
    use_fast_forms(fast)   # before the low-rank updates, as load_base does
    return plain, fast


def gradients(unet, matrices):
    unet(INPUT, torch.tensor([100, 800]), EMBEDS).sample.square().mean().backward()
    return {name: matrix.grad for name, matrix in matrices.items()}


def test_fast_forms_have_the_low_rank_updates_too(tiny_base):
    (plain, fast) = plain_and_fast(tiny_base)
    found = [gradients(unet, with_lora(unet, groups=["all"])) for unet in (plain, fast)]
    largest = predicted(plain).abs().max()
    assert (predicted(fast) - predicted(plain)).abs().max() < 2e-5 * largest
    for name, gradient in found[0].items():
        assert (found[1][name] - gradient).abs().max() < 1e-4 * gradient.abs().max(), name


def test_recomputing_changes_no_gradient(tiny_base):
    found = []
    for recompute in (False, True):
        unet = load_base(str(tiny_base)).unet.train()
        matrices = with_lora(unet)
        if recompute:
            recompute_activations(unet)
        torch.manual_seed(0)
        found.append(gradients(unet, matrices))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0]) and len(found[0]) > 180


def test_merged_weights_compute_the_same(base, lora_file):
    path, expected = lora_file
    plain_names = set(dict(base.unet.named_parameters()))
    apply_motion(base.unet, base.fingerprint, path)
    merge_loras(base.unet)
    assert set(dict(base.unet.named_parameters())) == plain_names and not lora_layers(base.unet)
    assert (predicted(base.unet) - expected).abs().max() < 2e-5 * expected.abs().max()


def test_applied_file_is_what_trained_to_the_last_bit(base, lora_file):
    path, expected = lora_file
    found = apply_motion(base.unet, base.fingerprint, path)
    assert found == info(base, ALPHA_OF_FILE) and torch.equal(predicted(base.unet), expected)
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())


@pytest.mark.parametrize("strength", [0.0, 0.5, -1.0])
def test_strength_scales_the_change_of_the_weights(base, lora_file, strength):
    path, _ = lora_file
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    plain = predicted(base.unet)
    apply_motion(base.unet, base.fingerprint, path, strength)
    if not strength:
        assert torch.equal(predicted(base.unet), plain)
    merge_loras(base.unet)
    matrices = {key.removeprefix("unet."): tensor for key, tensor in load_file(path).items()}
    for name, after in base.unet.state_dict().items():
        change = torch.zeros(())
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" in matrices:
            down, up = (matrices[f"{layer}.{matrix}.weight"].flatten(1) for matrix in ("lora_A", "lora_B"))
            change = (strength * up @ down).view(after.shape)
        torch.testing.assert_close(after, before[name] + change, rtol=1e-5, atol=1e-6)


def test_several_files_add_up_in_any_order(tiny_base, lora_file):
    tensors, found = load_file(lora_file[0]), []
    for strengths in ({"a": 0.5, "b": 0.25}, {"b": 0.25, "a": 0.5}):
        unet = load_base(str(tiny_base)).unet
        for adapter, strength in strengths.items():
            apply_lora(unet, tensors, ALPHA_OF_FILE, strength, adapter)
        found.append(predicted(unet))
    once = load_base(str(tiny_base)).unet
    apply_lora(once, tensors, ALPHA_OF_FILE, 0.75, "a")
    largest = found[0].abs().max()
    assert (found[0] - found[1]).abs().max() < 2e-5 * largest > (found[0] - predicted(once)).abs().max()
    assert (found[0] - predicted(load_base(str(tiny_base)).unet)).abs().max() > 0.01 * largest


def test_movement_is_the_norm_of_the_change_of_the_weights(base, lora_file):
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    selected = select_tunable(before, GROUPS)
    apply_motion(base.unet, base.fingerprint, lora_file[0])
    matrices = {name: tensor for name, tensor in base.unet.named_parameters() if ".lora_" in name}
    assert len(squared_changes(matrices, 1.0)) == len(lora_weights(base_shapes(base.unet), union(selected)))
    found = relative_change(unet_files(base.folder), matrices, selected, ALPHA_OF_FILE)
    merge_loras(base.unet)
    after = base.unet.state_dict()
    for group, names in selected.items():
        changes = sum((after[name] - before[name]).double().square().sum() for name in names)
        norms = sum(before[name].double().square().sum() for name in names)
        assert found[group] == pytest.approx(math.sqrt(changes / norms), rel=1e-4)
