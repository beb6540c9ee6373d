"""The file of low-rank updates: as diffusers writes it, where it is refused, and in stock diffusers."""

import json
import re

import pytest
import torch
from diffusers import UNet3DConditionModel
from safetensors.torch import load_file, save_file

from models.base import export_base, load_base
from models.lora import base_shapes
from models.lora_files import Lora, lora_weights
from models.motion_weights import (
    MotionInfo,
    apply_motion,
    read_motion_info,
    save_motion,
)
from models.tunable import select_tunable, union
from tests.conftest import ROOT
from tests.low_rank import (
    ALPHA_OF_FILE,
    ALPHA_TWICE,
    EMBEDS,
    GROUPS,
    INPUT,
    info,
    predicted,
    tiny_motion_unet,
    with_lora,
)
from utils.errors import UserError
from utils.tensor_files import read_metadata, write_tensors


@pytest.fixture
def base(tiny_base):
    return load_base(str(tiny_base))


def test_keys_and_description_are_those_of_a_file_of_diffusers(lora_file, tiny_base, tmp_path):
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
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=layers))
    StableDiffusionLoraLoaderMixin.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(unet),
        **_collate_lora_metadata({"unet": unet}))
    (theirs,) = tmp_path.glob("*.safetensors")
    ours = load_file(lora_file[0])
    assert {key: tensor.shape for key, tensor in ours.items()} == {
        key: tensor.shape for key, tensor in load_file(theirs).items()}
    mine, written = (json.loads(read_metadata(path)["lora_adapter_metadata"])
                     for path in (lora_file[0], theirs))
    read = ("r", "lora_alpha", "rank_pattern", "alpha_pattern")   # by the loaders of diffusers 0.34 to 0.39
    assert mine.keys() <= written.keys()
    assert [mine[f"unet.{key}"] for key in read] == [written[f"unet.{key}"] for key in read] == [4, 4, {}, {}]
    assert sorted(mine["unet.target_modules"]) == sorted(layers)


def test_description_survives_the_file(base, lora_file):
    assert read_motion_info(lora_file[0]) == info(base, ALPHA_OF_FILE)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("alpha", [1, 4, 8])
def test_alpha_of_a_file_is_its_rank_and_the_update_is_the_same(tmp_path, dtype, alpha):
    """A program that reads no description, as diffusers before 0.34, takes the rank for alpha."""
    down, up = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) for shape in ((4, 6), (5, 4)))
    up[0] = 1e-5   # a quarter of it has a fifth of the digits in fp16
    matrices = {"x.lora_A.motion.weight": down, "x.lora_B.motion.weight": up}
    path, lora = tmp_path / "motion.safetensors", Lora(4, alpha)
    save_motion(path, matrices, MotionInfo("b", "print", ["x"], "sks", 1, 8.0, "", {}, lora), dtype)
    stored = {name: tensor.float() for name, tensor in load_file(path).items()}
    if dtype == "fp16":
        matrices = {name: matrix.half().float() for name, matrix in matrices.items()}
    assert read_motion_info(path).lora == Lora(4, 4)
    assert torch.equal(stored["unet.x.lora_B.weight"] @ stored["unet.x.lora_A.weight"],
                       alpha / 4 * matrices["x.lora_B.motion.weight"] @ matrices["x.lora_A.motion.weight"])


def test_alpha_that_makes_a_value_too_large_for_fp16_is_stored_in_fp32(tmp_path):
    matrices = {"x.lora_A.motion.weight": torch.ones(4, 6), "x.lora_B.motion.weight": torch.full((5, 4), 4e4)}
    info = MotionInfo("b", "print", ["x"], "sks", 1, 8.0, "", {}, Lora(4, 8))
    save_motion(tmp_path / "motion.safetensors", matrices, info, "fp16")
    stored = load_file(tmp_path / "motion.safetensors")
    assert torch.equal(stored["unet.x.lora_B.weight"], torch.full((5, 4), 8e4))


def test_file_of_an_earlier_version_with_another_alpha_is_applied_with_it(tiny_base, lora_file, tmp_path):
    def halve(tensors):
        tensors.update({key: tensor / 2 for key, tensor in tensors.items() if "lora_B" in key})

    path = change_file(lora_file[0], tmp_path / "motion.safetensors", halve,
                       lora_adapter_metadata=settings(4))
    base = load_base(str(tiny_base))
    assert apply_motion(base.unet, base.fingerprint, path).lora == ALPHA_TWICE
    assert torch.equal(predicted(base.unet), lora_file[1])


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
    *((lambda tensors: None, {"lora_adapter_metadata": text}, "its description is damaged")
      for text in ("{}", "[]", "5", "null", '{"unet.r": 4, "unet.lora_alpha": NaN}')),
    (lambda tensors: None, {"base_fingerprint": "another"}, "and this base has other weights"),
    (lambda tensors: [tensors.update({f"unet.x{key}": tensors.pop(key)}) for key in list(tensors)], {},
     "tensors belongs to a layer of this base"),
])
def test_misfits_are_refused_before_anything_is_touched(base, lora_file, tmp_path, change, metadata, words):
    before, names = predicted(base.unet), list(base.unet.state_dict())
    path = change_file(lora_file[0], tmp_path / "motion.safetensors", change, **metadata)
    with pytest.raises(UserError, match=re.escape(words)):
        apply_motion(base.unet, base.fingerprint, path)
    assert list(base.unet.state_dict()) == names and torch.equal(predicted(base.unet), before)


def test_flipped_bit_is_refused(base, lora_file, tmp_path):
    content = bytearray(lora_file[0].read_bytes())
    content[-100] ^= 1
    (tmp_path / "motion.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        apply_motion(base.unet, base.fingerprint, tmp_path / "motion.safetensors")


def test_lora_of_another_program_is_refused(lora_file, tmp_path):
    save_file(load_file(lora_file[0]), tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="is a LoRA in one file. It is no motion of this program"):
        read_motion_info(tmp_path / "lora.safetensors")


def test_file_of_a_later_version_is_not_said_to_be_of_another_program(lora_file, tmp_path):
    path = change_file(lora_file[0], tmp_path / "lora.safetensors", lambda tensors: None,
                       format="motion-lora-9")
    with pytest.raises(UserError, match="holds no motion weights of this program .motion-weights-2, motion-"):
        read_motion_info(path)


def test_earlier_versions_refuse_the_file_for_its_format(lora_file):
    assert read_metadata(lora_file[0])["format"] not in ("motion-weights-1", "motion-weights-2")


# ----------------------------------------------------------------------------------------- in stock diffusers

def test_lines_of_the_readme_load_a_lora_into_stock_zeroscope(tiny_base, lora_file, stock, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(from diffusers import [^`]*PeftAdapterMixin[^`]*)```", text)
    lines = lines.replace("cerspense/zeroscope_v2_576w", str(tiny_base)).replace(
        "results/best-TIME/motion.safetensors", str(lora_file[0]))
    stock.run(lines + """
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
""", folder=tmp_path)
    theirs = load_file(tmp_path / "frames.safetensors")
    for strength, name in ((1.0, "first"), (0.5, "half")):
        base = load_base(str(tiny_base), fast_forms=False)
        apply_motion(base.unet, base.fingerprint, lora_file[0], strength)
        frames = base.pipeline("a cat", num_frames=4, height=64, width=64, num_inference_steps=2,
                               output_type="pt", generator=torch.Generator().manual_seed(1)).frames
        assert torch.equal(frames, theirs[name]), (frames - theirs[name]).abs().max()
    differences = {name: (theirs[name] - theirs["first"]).abs().max() for name in ("fused", "half")}
    assert differences["fused"] < 1e-4 < differences["half"]


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


def test_exported_folder_has_the_low_rank_updates_merged(base, lora_file, tiny_base, tmp_path):
    apply_motion(base.unet, base.fingerprint, lora_file[0])
    export_base(base, tmp_path / "folder")
    before = load_file(tiny_base / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert after.keys() == before.keys()
    assert changed == set(lora_weights({name: tuple(t.shape) for name, t in before.items()},
                                       union(select_tunable(before, GROUPS))))
    unet = UNet3DConditionModel.from_pretrained(tmp_path / "folder", subfolder="unet").eval()
    assert (predicted(unet) - lora_file[1]).abs().max() < 2e-5 * lora_file[1].abs().max()
