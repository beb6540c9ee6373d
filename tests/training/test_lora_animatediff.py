"""A run of low-rank updates on an AnimateDiff base, and its file in stock diffusers."""

import re
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.base import load_base
from models.base_folder import tensor_shapes
from models.lora_files import all_matrices
from models.motion_weights import apply_motion
from models.tunable import select_tunable, union
from rendering.sampling import Rendering, denoise
from tests.conftest import run_script_here
from utils.prompts import Prompt

PROMPT = "a cat doing the sks spin"


@pytest.fixture(scope="module")
def run(animatediff, save_small_config, tmp_path_factory):
    _, images, adapter = animatediff
    folder = tmp_path_factory.mktemp("lora_animatediff")
    config = save_small_config(
        folder, f"pretrained_model_path={images}", f"motion_adapter_path={adapter}",
        "lora_rank=4", "lora_alpha=8", "learning_rate=1e-2", "max_train_steps=3", "checkpointing_steps=2",
        "validation_steps=3", "validation_data.before_training=false", "motion_dtype=fp32")
    assert run_script_here("train_model", "--config", config) == 0
    return next((folder / "results").glob("spin-*"))


def test_layers_of_both_groups_train_without_those_that_take_a_keyword(run, animatediff):
    _, images, adapter = animatediff
    shapes = tensor_shapes(images, "unet", adapter)
    names = union(select_tunable(shapes, ["cross", "temporal"]))
    tensors = load_file(run / "motion.safetensors")
    assert {key.removeprefix("unet."): tuple(tensor.shape) for key, tensor in tensors.items()} == \
        all_matrices(shapes, names, 4)
    assert not [key for key in tensors if re.search(r"motion_modules\.\d+\.proj_", key)]
    assert all(tensor.any() for tensor in tensors.values())


STOCK = """
import sys, torch
from diffusers import AnimateDiffPipeline
pipe = AnimateDiffPipeline.from_pretrained(sys.argv[1])
pipe.load_lora_weights(sys.argv[2], adapter_name="motion")
for strength in map(float, sys.argv[4:]):
    pipe.set_adapters("motion", strength)
    frames = pipe(sys.argv[3], height=64, width=64, num_frames=4, num_inference_steps=3,
                  guidance_scale=9.0, negative_prompt="", generator=torch.Generator().manual_seed(64),
                  output_type="latent").frames
    torch.save(frames, f"{strength:g}.pt")
"""


def test_stock_diffusers_loads_the_file_and_renders_the_same(run, animatediff, stock, tmp_path):
    full, _, _ = animatediff
    _, warned = stock.run(STOCK, full, run / "motion.safetensors", PROMPT, 1, 0.5, 0, folder=tmp_path)
    assert "unexpected keys" not in warned
    how, prompts = Rendering(64, 64, 4, 3, 9.0, sampler="base"), [Prompt(text=PROMPT, seed=64)]

    def ours(strength: float, fast_forms: bool) -> torch.Tensor:
        base = load_base(str(full), fast_forms=fast_forms)
        apply_motion(base.unet, base.fingerprint, run / "motion.safetensors", strength)
        return denoise(base.pipeline, prompts, how)

    theirs = {strength: torch.load(tmp_path / f"{strength:g}.pt") for strength in (1, 0.5, 0)}
    for strength, latents in theirs.items():
        assert torch.equal(ours(strength, fast_forms=False), latents), strength
    # the fast forms round differently
    assert (ours(1, fast_forms=True) - theirs[1]).abs().max() < 1e-3 * theirs[1].abs().max()
    assert torch.equal(theirs[0], denoise(load_base(str(full), fast_forms=False).pipeline, prompts, how))
    assert (theirs[1] - theirs[0]).abs().max() > 0.01 * theirs[0].abs().max()


def test_resumed_run_gives_the_same_file(run, tmp_path):
    again = shutil.copytree(run, tmp_path / "results" / run.name)
    (again / "motion.safetensors").unlink()
    assert run_script_here("train_model", "--resume", again) == 0
    first, second = (load_file(folder / "motion.safetensors") for folder in (run, again))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_samples_are_the_videos_of_generation(run, tmp_path):
    assert run_script_here("generate_pretrained", "-m", run, "-o", tmp_path, "-p", PROMPT, "-s", "64",
                           "--steps", "2") == 0
    (video,), (sample,) = tmp_path.glob("*.mp4"), (run / "samples" / "step_00003").glob("*.mp4")
    assert np.array_equal(iio.imread(video), iio.imread(sample))


def test_exports_are_a_merged_folder_and_a_motion_lora(run, animatediff, tmp_path, capsys):
    assert run_script_here("generate_pretrained", "-m", run, "--export", tmp_path / "full") == 0
    base, merged = load_base(str(animatediff[0])), load_base(str(tmp_path / "full"))
    apply_motion(base.unet, base.fingerprint, run / "motion.safetensors")
    how, prompts = Rendering(64, 64, 4, 2, 9.0, sampler="base"), [Prompt(text=PROMPT, seed=64)]
    latents = denoise(base.pipeline, prompts, how)
    assert (denoise(merged.pipeline, prompts, how) - latents).abs().max() < 1e-3 * latents.abs().max()
    path = tmp_path / "comfy.safetensors"
    assert run_script_here("generate_pretrained", "-m", run, "--export-comfy", path) == 0
    keys = load_file(path).keys()
    assert f"{len(keys) // 2} layers of attention along time. Left out: " in capsys.readouterr().out
    assert all(".temporal_transformer.transformer_blocks.0.attention_blocks." in key for key in keys)
