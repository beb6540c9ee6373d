"""Low-rank updates: which layers get them, what they compute, their file, and stock diffusers with it."""

import json
import math
import os
import re
import subprocess
import sys
import zlib

import pytest
import torch
from diffusers import UNet3DConditionModel, UNetMotionModel
from safetensors.torch import load_file, save_file

from models.base import export_base, load_base
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
    MotionInfo,
    apply_motion,
    movement,
    read_motion_info,
    save_motion,
)
from models.recompute import recompute_activations
from models.tunable import select_tunable, union
from tests.conftest import ROOT
from utils.errors import UserError
from utils.tensor_files import read_metadata, write_tensors

GROUPS = ["cross", "temporal", "temp_convs"]
ALPHA_TWICE = Lora(4, 8.0)
INPUT = torch.randn(2, 4, 6, 8, 8, generator=torch.Generator().manual_seed(3))   # (b c f h w)
EMBEDS = torch.randn(2, 77, 32, generator=torch.Generator().manual_seed(4))      # (b n d)


def drawn(layer: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(layer.encode()))


def with_lora(unet, lora=ALPHA_TWICE, groups=GROUPS):
    """Return the matrices of low-rank updates that change something: B is not zero, as it is at the start."""
    names = union(select_tunable(base_shapes(unet), groups))
    matrices = add_trainable_lora(unet, names, lora, drawn)
    for name, matrix in matrices.items():
        if ".lora_B." in name:
            matrix.data.normal_(std=0.05, generator=drawn(name))
    return matrices


def predicted(unet) -> torch.Tensor:
    with torch.no_grad():
        return unet(INPUT, torch.tensor([100, 800]), EMBEDS).sample


def info(base, lora=ALPHA_TWICE) -> MotionInfo:
    return MotionInfo(base.name, base.fingerprint, GROUPS, "sks", 7, 8.0, "", {"torch": "2"}, lora)


@pytest.fixture
def base(tiny_base):
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def motion(tiny_base, tmp_path_factory):
    """A LoRA file for the tiny base, in float32, and what the base then predicts."""
    base, path = load_base(str(tiny_base)), tmp_path_factory.mktemp("lora") / "motion.safetensors"
    save_motion(path, with_lora(base.unet), info(base), "fp32")
    return path, predicted(base.unet.eval())


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


def test_merged_weights_compute_the_same(base, motion):
    path, expected = motion
    plain_names = set(dict(base.unet.named_parameters()))
    apply_motion(base.unet, base.fingerprint, path)
    merge_loras(base.unet)
    assert set(dict(base.unet.named_parameters())) == plain_names and not lora_layers(base.unet)
    assert (predicted(base.unet) - expected).abs().max() < 2e-5 * expected.abs().max()


def test_applied_file_is_what_trained_to_the_last_bit(base, motion):
    path, expected = motion
    found = apply_motion(base.unet, base.fingerprint, path)
    assert found == info(base) and torch.equal(predicted(base.unet), expected)
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())


@pytest.mark.parametrize("strength", [0.0, 0.5, -1.0])
def test_strength_scales_the_change_of_the_weights(base, motion, strength):
    path, _ = motion
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
            change = (strength * 2 * up @ down).view(after.shape)   # alpha is twice the rank
        torch.testing.assert_close(after, before[name] + change, rtol=1e-5, atol=1e-6)


def test_several_files_add_up_in_any_order(tiny_base, motion):
    tensors, found = load_file(motion[0]), []
    for strengths in ({"a": 0.5, "b": 0.25}, {"b": 0.25, "a": 0.5}):
        unet = load_base(str(tiny_base)).unet
        for adapter, strength in strengths.items():
            apply_lora(unet, tensors, ALPHA_TWICE, strength, adapter)
        found.append(predicted(unet))
    once = load_base(str(tiny_base)).unet
    apply_lora(once, tensors, ALPHA_TWICE, 0.75, "a")
    largest = found[0].abs().max()
    assert (found[0] - found[1]).abs().max() < 2e-5 * largest > (found[0] - predicted(once)).abs().max()
    assert (found[0] - predicted(load_base(str(tiny_base)).unet)).abs().max() > 0.01 * largest


def test_movement_is_the_norm_of_the_change_of_the_weights(base, motion):
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    selected = select_tunable(before, GROUPS)
    apply_motion(base.unet, base.fingerprint, motion[0])
    matrices = {name: tensor for name, tensor in base.unet.named_parameters() if ".lora_" in name}
    assert len(squared_changes(matrices, 2.0)) == len(lora_weights(base_shapes(base.unet), union(selected)))
    found = movement(unet_files(base.folder), matrices, selected, ALPHA_TWICE)
    merge_loras(base.unet)
    after = base.unet.state_dict()
    for group, names in selected.items():
        changes = sum((after[name] - before[name]).double().square().sum() for name in names)
        norms = sum(before[name].double().square().sum() for name in names)
        assert found[group] == pytest.approx(math.sqrt(changes / norms), rel=1e-4)


# --------------------------------------------------------------------------------------------------- the file

def test_keys_and_description_are_those_of_a_file_of_diffusers(motion, tiny_base, tmp_path):
    """Written by diffusers 0.42 for the same layers of the same network."""
    from diffusers.loaders import PeftAdapterMixin
    from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig, get_peft_model_state_dict

    class WithLora(UNet3DConditionModel, PeftAdapterMixin):
        pass

    unet = WithLora.from_pretrained(tiny_base, subfolder="unet")
    weights = lora_weights(base_shapes(unet), union(select_tunable(base_shapes(unet), GROUPS)))
    layers = [name.removesuffix(".weight") for name in weights]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=layers))
    StableDiffusionLoraLoaderMixin.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(unet),
        **_collate_lora_metadata({"unet": unet}))
    (theirs,) = tmp_path.glob("*.safetensors")
    ours = load_file(motion[0])
    assert {key: tensor.shape for key, tensor in ours.items()} == {
        key: tensor.shape for key, tensor in load_file(theirs).items()}
    mine, written = (json.loads(read_metadata(path)["lora_adapter_metadata"]) for path in (motion[0], theirs))
    assert mine.keys() <= written.keys() and mine["unet.r"] == written["unet.r"] == 4
    assert mine["unet.lora_alpha"] == written["unet.lora_alpha"] == 8


def test_description_survives_the_file(base, motion):
    assert read_motion_info(motion[0]) == info(base)


def change_file(path, target, change, **metadata):
    tensors = load_file(path)
    change(tensors)
    write_tensors(target, tensors, {**read_metadata(path), **metadata})
    return target


def settings(rank):
    return json.dumps({"unet.r": rank, "unet.lora_alpha": 8.0})


def first(tensors, matrix="lora_A"):
    return next(key for key in sorted(tensors) if matrix in key)


@pytest.mark.parametrize("change, metadata, words", [
    (lambda tensors: tensors.pop(first(tensors)), {}, "lacks 1 tensors of"),
    (lambda tensors: tensors.update({"unet.extra.lora_A.weight": torch.zeros(4, 4)}), {},
     "1 tensors that are not of"),
    (lambda tensors: tensors.update({first(tensors): torch.zeros(5, 32)}), {},
     "is of rank 5, and its description says 4"),
    (lambda tensors: tensors.update({first(tensors): torch.zeros(4, 7)}), {},
     "has shape (4, 7), and this base needs"),
    (lambda tensors: tensors[first(tensors)].fill_(torch.nan), {}, "not finite"),
    (lambda tensors: None, {"lora_adapter_metadata": settings(8)},
     "is of rank 4, and its description says 8"),
    (lambda tensors: None, {"lora_adapter_metadata": settings(0)}, "its description is damaged (rank 0"),
    (lambda tensors: None, {"lora_adapter_metadata": "{}"}, "its description is damaged"),
    (lambda tensors: None, {"base_fingerprint": "another"}, "and this base has other weights"),
    (lambda tensors: [tensors.update({f"unet.x{key}": tensors.pop(key)}) for key in list(tensors)], {},
     "tensors belongs to a layer of this base"),
])
def test_misfits_are_refused_before_anything_is_touched(base, motion, tmp_path, change, metadata, words):
    before, names = predicted(base.unet), list(base.unet.state_dict())
    path = change_file(motion[0], tmp_path / "motion.safetensors", change, **metadata)
    with pytest.raises(UserError, match=re.escape(words)):
        apply_motion(base.unet, base.fingerprint, path)
    assert list(base.unet.state_dict()) == names and torch.equal(predicted(base.unet), before)


def test_flipped_bit_is_refused(base, motion, tmp_path):
    content = bytearray(motion[0].read_bytes())
    content[-100] ^= 1
    (tmp_path / "motion.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        apply_motion(base.unet, base.fingerprint, tmp_path / "motion.safetensors")


def test_lora_of_another_program_is_refused(motion, tmp_path):
    save_file(load_file(motion[0]), tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="holds no motion weights of this program"):
        read_motion_info(tmp_path / "lora.safetensors")


def test_earlier_versions_refuse_the_file_for_its_format(motion):
    assert read_metadata(motion[0])["format"] not in ("motion-weights-1", "motion-weights-2")


# ----------------------------------------------------------------------------------------- in stock diffusers

def stock(folder, *lines: str) -> None:
    """Run lines in a process that does not know this project, with as many threads as here."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lines_of_the_readme_load_a_lora_into_stock_zeroscope(tiny_base, motion, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(from diffusers import [^`]*PeftAdapterMixin[^`]*)```", text)
    lines = lines.replace("cerspense/zeroscope_v2_576w", str(tiny_base)).replace(
        "results/best-TIME/motion.safetensors", str(motion[0]))
    stock(tmp_path, lines, """
import torch
def frames():
    return pipe("a cat", num_frames=4, height=64, width=64, num_inference_steps=2, output_type="pt",
                generator=torch.Generator().manual_seed(1)).frames
first = frames()
pipe.set_adapters("motion", 0.5)
half = frames()
pipe.set_adapters("motion", 1.0)
pipe.fuse_lora()
fused = frames()
from safetensors.torch import save_file
frames = dict(first=first, half=half, fused=fused)
save_file({name: tensor.contiguous() for name, tensor in frames.items()}, "frames.safetensors")
""")
    theirs = load_file(tmp_path / "frames.safetensors")
    for strength, name in ((1.0, "first"), (0.5, "half")):
        base = load_base(str(tiny_base), fast_forms=False)
        apply_motion(base.unet, base.fingerprint, motion[0], strength)
        frames = base.pipeline("a cat", num_frames=4, height=64, width=64, num_inference_steps=2,
                               output_type="pt", generator=torch.Generator().manual_seed(1)).frames
        assert torch.equal(frames, theirs[name]), (frames - theirs[name]).abs().max()
    differences = {name: (theirs[name] - theirs["first"]).abs().max() for name in ("fused", "half")}
    assert differences["fused"] < 1e-4 < differences["half"]


def tiny_motion_unet() -> UNetMotionModel:
    torch.manual_seed(0)
    unet = UNetMotionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), num_attention_heads=4,
        motion_num_attention_heads=4, motion_max_seq_length=8, use_motion_mid_block=False)
    return unet.eval()


def test_unet_of_animatediff_predicts_the_same_with_the_loader_of_diffusers(tmp_path):
    groups, trained = ["motion_modules", "attn2.to_k"], tiny_motion_unet()
    matrices = with_lora(trained, groups=groups)
    info = MotionInfo("b", "print", groups, "sks", 1, 8.0, "", {}, ALPHA_TWICE)
    save_motion(tmp_path / "motion.safetensors", matrices, info, "fp32")
    theirs, ours = tiny_motion_unet(), tiny_motion_unet()
    theirs.load_lora_adapter(tmp_path, weight_name="motion.safetensors", prefix="unet", adapter_name="m")
    apply_motion(ours, "print", tmp_path / "motion.safetensors")

    def predict(unet):
        with torch.no_grad():
            return unet(INPUT, 100, EMBEDS.repeat_interleave(6, 0)).sample

    assert torch.equal(predict(theirs), predict(ours)) and torch.equal(predict(trained.eval()), predict(ours))
    assert (predict(tiny_motion_unet()) - predict(ours)).abs().max() > 1e-3


def test_exported_folder_has_the_low_rank_updates_merged(base, motion, tiny_base, tmp_path):
    apply_motion(base.unet, base.fingerprint, motion[0])
    export_base(base, tmp_path / "folder")
    before = load_file(tiny_base / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert after.keys() == before.keys()
    assert changed == set(lora_weights({name: tuple(t.shape) for name, t in before.items()},
                                       union(select_tunable(before, GROUPS))))
    unet = UNet3DConditionModel.from_pretrained(tmp_path / "folder", subfolder="unet").eval()
    assert (predicted(unet) - motion[1]).abs().max() < 2e-5 * motion[1].abs().max()
