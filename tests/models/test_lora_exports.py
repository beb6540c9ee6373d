"""A LoRA made of whole weights, and a motion LoRA for ComfyUI."""

import re

import pytest
import torch
from safetensors.torch import load_file

from models.base import load_base
from models.lora_exports import export_comfy, export_lora, nearest_low_rank
from models.lora_files import lora_weights, matrix_shapes
from models.motion_weights import (
    MotionInfo,
    apply_motion,
    read_motion_info,
    save_motion,
)
from models.tunable import select_tunable, union
from tests.low_rank import (
    ALPHA_TWICE,
    EMBEDS,
    INPUT,
    predicted,
    tiny_motion_unet,
    with_lora,
)

GROUPS = ["cross", "temp_convs"]
CONFIG = "train_data: {path: clips}\n"


@pytest.fixture
def base(tiny_base):
    return load_base(str(tiny_base))


@pytest.fixture
def whole(base, tmp_path):
    """Whole weights whose change is of rank 3 in every layer, and none in norms and biases."""
    parameters, tuned = dict(base.unet.named_parameters()), {}
    names = union(select_tunable(parameters, GROUPS))
    shapes = {name: tuple(parameters[name].shape) for name in names}
    torch.manual_seed(0)
    for name in names:
        tuned[name] = parameters[name].detach().clone()
        if name in lora_weights(shapes, names):
            down, up = (torch.randn(shape).flatten(1) for shape in matrix_shapes(shapes[name], 3).values())
            tuned[name] += 0.01 * (up @ down).view(shapes[name])
    path = tmp_path / "whole.safetensors"
    info = MotionInfo(base.name, base.fingerprint, GROUPS, "sks", 7, 8.0, CONFIG, {})
    save_motion(path, tuned, info, "fp32")
    return path


def export(base, whole, rank, **more):
    path = whole.with_name(f"lora_{rank}.safetensors")
    return path, export_lora(base.unet, base.fingerprint, whole, rank, path, **more)


def test_change_of_low_rank_is_kept_whole(base, whole, tiny_base):
    path, report = export(base, whole, 4)
    found, expected = load_base(str(tiny_base)), load_base(str(tiny_base))
    info = apply_motion(found.unet, found.fingerprint, path)
    apply_motion(expected.unet, expected.fingerprint, whole)
    assert (info.lora.rank, info.lora.alpha, info.step, info.groups) == (4, 4, 7, GROUPS)
    expected = predicted(expected.unet)
    assert (predicted(found.unet) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (predicted(base.unet) - expected).abs().max() > 0.01 * expected.abs().max()
    assert [line.split()[:2] for line in report.splitlines()[1:]] == [
        ["rank", "4"], ["cross", "100.0%"], ["temp_convs", "100.0%"], ["together", "100.0%"]]


def test_report_counts_the_squares_that_are_kept(base, whole):
    path, report = export(base, whole, 2)
    tuned, matrices = load_file(whole), load_file(path)
    change = kept = 0
    for name, before in base.unet.named_parameters():
        layer = f"unet.{name.removesuffix('.weight')}"
        if name in tuned:
            change += (tuned[name] - before).double().square().sum().item()
        if f"{layer}.lora_A.weight" in matrices:
            down, up = (matrices[f"{layer}.lora_{side}.weight"].double().flatten(1) for side in "AB")
            kept += (up @ down).square().sum().item()
    share = float(re.search(r"together +([\d.]+)%", report)[1])
    assert share == pytest.approx(100 * kept / change, abs=0.06) and share < 99


def test_norms_and_biases_count_as_lost(base, whole):
    tuned = load_file(whole)
    for name in tuned:
        if tuned[name].ndim == 1:
            tuned[name] += 1
    save_motion(whole, tuned, read_motion_info(whole), "fp32")
    _, report = export(base, whole, 4)
    assert float(re.search(r"temp_convs +([\d.]+)%", report)[1]) < 50
    assert float(re.search(r"cross +([\d.]+)%", report)[1]) == 100


def test_strength_is_part_of_the_file(base, whole):
    once, twice = load_file(export(base, whole, 4)[0]), load_file(export(base, whole, 5, strength=2.0)[0])
    for name in (name for name in once if "lora_A" in name):
        up = name.replace("lora_A", "lora_B")
        first, second = (tensors[up].flatten(1) @ tensors[name].flatten(1) for tensors in (once, twice))
        torch.testing.assert_close(second, 2 * first, rtol=1e-3, atol=1e-5)


def test_rank_above_the_sides_of_a_matrix_is_filled_with_zeros():
    change = torch.randn(3, 2, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    down, up, squares = nearest_low_rank(change, 8)
    assert {"lora_A": down.shape, "lora_B": up.shape} == matrix_shapes((3, 2, 3, 1, 1), 8)
    torch.testing.assert_close((up.flatten(1) @ down.flatten(1)).view(change.shape), change)
    assert squares.sum().item() == pytest.approx(change.square().sum().item()) and len(squares) == 3


@pytest.mark.parametrize("arguments, words", [
    (["--export-lora", "none", "x.safetensors"],
     "--export-lora none: the rank must be a whole number above zero"),
    (["--export-lora", "0", "x.safetensors"], "--export-lora 0: the rank must be"),
    (["--export-lora", "4", "x.ckpt"], "x.ckpt: name a new file that ends in .safetensors."),
    (["--export-comfy", "x.pt"], "x.pt: name a new file that ends in .safetensors."),
    (["--export-lora", "4", "whole.safetensors"], "whole.safetensors: name a new file"),
    (["--export-comfy", "x.safetensors"],
     "holds whole weights. Make a LoRA of it first: --export-lora 32 FILE."),
    (["--export-lora", "4", "x.safetensors", "--export-comfy", "y.safetensors"],
     "argument --export-comfy: not allowed with argument --export-lora"),
    (["--export", "folder", "--push-to-hub", "jo/x"],
     "argument --push-to-hub: not allowed with argument --export"),
])
def test_wrong_arguments_are_one_line_and_no_file(whole, run_main, monkeypatch, arguments, words):
    monkeypatch.chdir(whole.parent)
    before = whole.read_bytes()
    code, _, err = run_main("generate_pretrained", "-m", whole, *arguments)
    assert code == 2 and words in err and err.count("\n") == 1
    assert [path.name for path in whole.parent.iterdir()] == [whole.name] and whole.read_bytes() == before


def test_command_writes_the_lora_and_says_what_it_keeps(whole, run_main, tmp_path):
    path, other = tmp_path / "lora.safetensors", tmp_path / "other.safetensors"
    code, out, err = run_main("generate_pretrained", "-m", whole, "--export-lora", "3", path)
    assert code == 0, err
    assert "kept of the squared change" in out and out.endswith(f"exported: {path}\n")
    assert read_motion_info(path).lora.rank == 3
    code, _, err = run_main("generate_pretrained", "-m", path, "--export-lora", "3", other)
    assert code == 2 and err.startswith(f"{path}: is a LoRA already, of rank 3.") and err.count("\n") == 1
    code, _, err = run_main("generate_pretrained", "-m", path, "--export-comfy", other)
    assert code == 2 and "has no attention in motion modules" in err and err.count("\n") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"whole.safetensors", "lora.safetensors"}


def test_motion_of_norms_alone_has_no_lora(base, run_main, tmp_path):
    path, whole = tmp_path / "x.safetensors", tmp_path / "norms.safetensors"
    tuned = {name: tensor for name, tensor in base.unet.named_parameters() if ".norm1." in name}
    info = MotionInfo(base.name, base.fingerprint, ["norm1"], "sks", 1, 8.0, CONFIG, {})
    save_motion(whole, tuned, info, "fp32")
    code, _, err = run_main("generate_pretrained", "-m", whole, "--export-lora", "3", path)
    assert code == 2 and "has no Linear layer and no convolution" in err and not path.exists()


def test_base_has_no_lora_to_export(tiny_base, run_main, tmp_path):
    path = tmp_path / "x.safetensors"
    code, _, err = run_main("generate_pretrained", "-m", tiny_base, "--export-lora", "3", path)
    assert code == 2 and "write the LoRA of one motion. Name it with -m." in err
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------- for ComfyUI

@pytest.fixture
def comfy(tmp_path):
    """A LoRA of a tiny UNet of AnimateDiff, and the motion LoRA made of its attention along time."""
    groups, unet = ["motion_modules", "attn2.to_k"], tiny_motion_unet()
    lora, path = tmp_path / "lora.safetensors", tmp_path / "comfy.safetensors"
    save_motion(lora, with_lora(unet, groups=groups),
                MotionInfo("b", "print", groups, "sks", 1, 8.0, "", {}, ALPHA_TWICE), "fp32")
    return lora, path, export_comfy(tiny_motion_unet(), "print", lora, path)


def test_keys_are_those_of_animatediff(comfy):
    keys = load_file(comfy[1])
    pattern = (r"(down_blocks|up_blocks)\.\d\.motion_modules\.\d\.temporal_transformer\."
               r"transformer_blocks\.0\.attention_blocks\.[01]\."
               r"processor\.to_(q|k|v|out)_lora\.(down|up)\.weight")
    assert all(re.fullmatch(pattern, key) for key in keys)
    written = {key.partition(".temporal_transformer")[0] for key in keys}
    assert len(keys) == len(written) * 2 * 4 * 2   # modules, attentions, projections, matrices
    modules = [name for name, _ in tiny_motion_unet().named_modules()]
    assert {name for name in modules if re.search(r"motion_modules\.\d+$", name)} == written


def test_share_of_the_change_that_is_left_out_is_said(comfy):
    lora, kept, whole = load_file(comfy[0]), load_file(comfy[1]), 0
    for key in (key for key in lora if "lora_A" in key):
        down, up = (lora[key.replace("lora_A", side)].double().flatten(1) for side in ("lora_A", "lora_B"))
        whole += (up @ down).square().sum().item()
    written = sum((kept[key.replace(".down.", ".up.")].double() @ kept[key].double()).square().sum().item()
                  for key in kept if ".down." in key)
    assert 0.01 < 1 - written / whole < 0.99
    assert comfy[2] == (
        f"{len(kept) // 2} layers of attention along time. Left out: {len(lora) // 2 - len(kept) // 2} other "
        f"layers, with {1 - written / whole:.1%} of the squared change. They are not written, because "
        f"AnimateDiff's own motion LoRAs hold attention along time alone.")


def test_weights_with_the_motion_lora_are_those_with_the_lora(comfy):
    """Added by the rule of AnimateDiff: weight + up @ down, of the layer that the key names."""
    ours, theirs = tiny_motion_unet(), tiny_motion_unet()
    apply_motion(ours, "print", comfy[0])
    for name, module in ours.named_modules():   # without the layers that are left out
        if hasattr(module, "lora_A") and not re.search(r"motion_modules.*attn[12]", name):
            module.set_scale(module.active_adapters[0], 0)
    tensors, modules = load_file(comfy[1]), dict(theirs.named_modules())
    for key in (key for key in tensors if ".down." in key):
        layer = key.replace("processor.", "").replace("_lora", "").replace(".down.weight", "")
        layer = re.sub(r"to_out$", "to_out.0", layer.replace("temporal_transformer.", ""))
        layer = re.sub(r"attention_blocks\.(\d)", lambda found: f"attn{int(found[1]) + 1}", layer)
        modules[layer].weight.data += tensors[key.replace(".down.", ".up.")] @ tensors[key]

    def predict(unet):
        with torch.no_grad():
            return unet(INPUT, 100, EMBEDS.repeat_interleave(6, 0)).sample

    expected = predict(ours)
    assert (predict(theirs) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (predict(tiny_motion_unet()) - expected).abs().max() > 1e-3 * expected.abs().max()
