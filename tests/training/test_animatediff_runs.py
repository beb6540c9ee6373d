"""A whole run on an AnimateDiff base: what trains, resuming, samples, generation, export, mistakes."""

import json
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from models.base import decode_latents, load_base
from models.base_folder import tensor_sizes
from models.tunable import select_tunable, union
from rendering.sampling import Rendering, denoise
from tests.conftest import run_script_here
from training.run_folder import read_log
from utils.prompts import Prompt
from utils.video import video_metadata

PROMPT = "a cat doing the V* spin"


@pytest.fixture(scope="module")
def settings(animatediff, save_small_config, tmp_path_factory):
    """Return a function that writes the config of a small run on the image model and its adapter."""
    _, images, adapter = animatediff
    folder = tmp_path_factory.mktemp("animatediff")
    return lambda *changes, name="config.yaml": save_small_config(
        folder, f"pretrained_model_path={images}", f"motion_adapter_path={adapter}", "validation_steps=2",
        "max_train_steps=2", "checkpointing_steps=1", "trainable_modules=[cross,temporal,temp_convs]",
        "train_data.held_out=1", "held_out_steps=1", *changes, name=name)


def train(config: Path, *arguments) -> Path:
    """Train, and return the newest run folder."""
    assert run_script_here("train_model", "--config", config, *arguments) == 0
    return max((config.parent / "results").glob("*-*"), key=lambda run: run.stat().st_mtime)


@pytest.fixture(scope="module")
def run(settings) -> Path:
    return train(settings("subject=whole"))


def test_exactly_the_named_groups_train(run, animatediff):
    _, images, adapter = animatediff
    sizes = tensor_sizes(images, "unet", adapter)
    tuned = load_file(run / "motion.safetensors")
    selected = select_tunable(sizes, ["cross", "temporal"])
    assert sorted(tuned) == union(selected) and set(sizes) - set(tuned)
    before = dict(load_base(str(images), adapter=str(adapter)).unet.named_parameters())
    changed = [name for name, tensor in tuned.items() if not torch.equal(tensor, before[name].half())]
    # the bias before a group norm of one channel a group, and others like it, may keep their value
    assert len(changed) > 0.95 * len(tuned)


def test_held_out_clips_are_measured(run):
    losses = [entry["held_out_exemplar"] for entry in read_log(run) if "held_out_exemplar" in entry]
    assert len(set(losses)) == len(losses) == 3 and all(0.01 < loss < 3 for loss in losses)


def test_killed_and_resumed_gives_the_same_weights(run, settings, monkeypatch):
    import training.loop as loop

    step = loop.optimizer_step

    def killed(training, number):
        if number == 1:
            raise KeyboardInterrupt
        return step(training, number)

    config = settings("subject=killed", "validation_steps=null", name="killed.yaml")
    monkeypatch.setattr(loop, "optimizer_step", killed)
    assert run_script_here("train_model", "--config", config) != 0
    monkeypatch.undo()
    resumed = train(config, "--resume")
    assert (resumed / "checkpoint-1").is_dir() and resumed.name.startswith("killed")
    ours, theirs = load_file(resumed / "motion.safetensors"), load_file(run / "motion.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_recomputing_and_a_saved_pipeline_give_the_same_weights(run, settings, animatediff):
    full, _, _ = animatediff
    again = train(settings(f"pretrained_model_path={full}", "motion_adapter_path=null", "subject=saved",
                           "gradient_checkpointing=true", "validation_steps=null", name="saved.yaml"))
    ours, theirs = load_file(again / "motion.safetensors"), load_file(run / "motion.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_appearance_is_learned_from_single_frames_that_skip_the_motion_modules(settings):
    run = train(settings("subject=look", "trainable_modules=[cross,self]", "train_data.train_weights=spatial",
                         "train_data.single_frame_layers=spatial", "max_train_steps=1",
                         "validation_steps=null", name="look.yaml"))
    assert len(load_file(run / "motion.safetensors")) == 16


def generated(run: Path, out: Path, *arguments) -> Path:
    assert run_script_here("generate_pretrained", "-m", run, "-o", out, "-p", PROMPT, "-s", "64",
                           "--steps", "2", *arguments) == 0
    (video,) = out.glob("*.mp4")
    return video


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_samples_are_the_videos_of_generation(precision, run, settings, tmp_path):
    if precision == "bf16":   # where the sines that tell a frame's place must be rounded too
        run = train(settings("subject=samples", "mixed_precision=bf16", "max_train_steps=1",
                             "validation_steps=1", "validation_data.before_training=false",
                             name="samples.yaml"))
    (sample,) = max((run / "samples").iterdir()).glob("*.mp4")
    assert np.array_equal(iio.imread(generated(run, tmp_path / "out")), iio.imread(sample))
    assert video_metadata(sample)["precision"] == precision


STOCK = """
import sys, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
latents = pipe(sys.argv[2], height=64, width=64, num_frames=4, num_inference_steps=3, guidance_scale=9.0,
               negative_prompt="", generator=torch.Generator().manual_seed(64), output_type="latent").frames
torch.save(latents, sys.argv[3])
print(type(pipe).__name__, type(pipe.unet).__name__)
"""


def test_exported_folder_gives_the_same_frames_in_stock_diffusers(run, stock, tmp_path):
    assert run_script_here("generate_pretrained", "-m", run, "--export", tmp_path / "full") == 0
    said, _ = stock.run(STOCK, tmp_path / "full", "a cat", tmp_path / "latents.pt", folder=tmp_path)
    assert said.split() == ["AnimateDiffPipeline", "UNetMotionModel"]
    theirs = torch.load(tmp_path / "latents.pt")
    how, prompts = Rendering(64, 64, 4, 3, 9.0, sampler="base"), [Prompt(text="a cat", seed=64)]
    plain = denoise(load_base(str(tmp_path / "full"), fast_forms=False).pipeline, prompts, how)
    assert torch.equal(plain, theirs)
    ours = denoise(load_base(str(tmp_path / "full")).pipeline, prompts, how)
    assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()   # the fast forms round differently
    vae = load_base(str(tmp_path / "full")).vae
    frames = [decode_latents(vae, latents[0]).astype(int) for latents in (ours, theirs)]
    assert np.abs(frames[0] - frames[1]).max() <= 1


def test_export_keeps_precision_and_carries_the_adapters_scheduler(animatediff, tmp_path):
    from safetensors.torch import save_file

    _, images, adapter = animatediff
    images = shutil.copytree(images, tmp_path / "images")
    weights = images / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights)
    assert run_script_here("generate_pretrained", "-m", images, "--adapter", adapter,
                           "--export", tmp_path / "out") == 0
    exported = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    dtypes = {"motion_modules" in name: tensor.dtype for name, tensor in exported.items()}
    assert dtypes == {True: torch.float32, False: torch.float16}
    scheduler = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["_class_name"], scheduler["beta_schedule"]) == ("DDIMScheduler", "linear")
    assert not (tmp_path / "out" / "motion_adapter").exists()


def test_motion_is_rendered_on_either_form_of_its_base(run, animatediff, tmp_path, monkeypatch):
    full, images, adapter = animatediff
    cached = tmp_path / "cache" / "models--jo--full"   # as the hub's own program keeps what it downloads
    shutil.copytree(full, cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    videos = [generated(run, tmp_path / "as trained"), generated(run, tmp_path / "whole", "-b", full),
              generated(run, tmp_path / "on the hub", "-b", "jo/full"),
              generated(run, tmp_path / "moved", "-b", images, "--adapter", adapter)]
    frames = [iio.imread(video) for video in videos]
    assert all(np.array_equal(frames[0], other) for other in frames[1:])
    assert all("adapter" not in video_metadata(video) for video in videos[1:3])


# -------------------------------------------------------------------------------------- reports and mistakes

def test_samples_and_videos_name_the_adapter_which_may_move(run, animatediff, tmp_path):
    adapter = animatediff[2]
    (sample,) = (run / "samples" / "step_00000").glob("*.mp4")
    assert video_metadata(sample)["adapter"] == str(adapter)
    video = generated(run, tmp_path / "out", "--adapter", shutil.copytree(adapter, tmp_path / "moved"))
    assert video_metadata(video)["adapter"] == str(tmp_path / "moved")
    written = video.stat().st_mtime_ns
    assert generated(run, tmp_path / "out").stat().st_mtime_ns == written   # the same weights: it is kept


def test_dry_run_names_what_this_base_does_not_have(settings, capsys):
    config = settings("temporal_dropout=0.1", name="dry.yaml")
    assert run_script_here("train_model", "--config", config, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "temp_convs: this base has no such layers" in said
    assert "temporal_dropout has no effect: this base has no temporal convolutions" in said
    assert "memory, estimated: " in said


@pytest.mark.parametrize("changes, words", [
    (["train_data.n_sample_frames=9"], ["train_data.n_sample_frames is 9. This base takes at most 8 frames"]),
    (["validation_data.num_frames=9"], ["validation_data.num_frames is 9. This base takes at most 8 frames"]),
    (["trainable_modules=temp_convs"], ["'temp_convs' matches no weight of the base. Known groups: cross, "]),
    (["train_data.train_weights=spatial", "train_data.single_frame_layers=spatial"],
     ["spatial skips the temporal layers, and trainable_modules trains them."]),
    (["motion_adapter_path=null"], ["only with a motion adapter. Name one as motion_adapter_path"]),
    (["pretrained_model_path={tiny_base}"], ["is a text-to-video model", "Leave out motion_adapter_path"]),
    (["motion_adapter_path=nobody/adapter-not-here"],
     ["nobody/adapter-not-here: is not on this machine, and the hub cannot be reached."]),
])
def test_mistakes_are_one_line_and_code_2(settings, capsys, tiny_base, monkeypatch, changes, words):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = settings(*(change.format(tiny_base=tiny_base) for change in changes), name="wrong.yaml")
    assert run_script_here("train_model", "--config", config) == 2
    problem = capsys.readouterr().err.strip()
    assert len(problem.splitlines()) == 1 and all(word in problem for word in words), problem


def test_more_frames_than_the_adapter_takes_are_not_rendered(animatediff, capsys, tmp_path):
    full, _, _ = animatediff
    code = run_script_here("generate_pretrained", "-m", full, "-o", tmp_path, "-p", "a cat", "-d", "9")
    assert code == 2
    assert "--duration 9: this base takes at most 8 frames." in capsys.readouterr().err


def test_config_of_animatediff_starts_apart_from_its_paths(animatediff, clip_folders, tmp_path, capsys):
    full, images, adapter = animatediff
    code = run_script_here(
        "train_model", "--config", "configs/animatediff.yaml", f"pretrained_model_path={images}",
        f"motion_adapter_path={adapter}", f"train_data.path={clip_folders[0]}",
        f"train_data.class_path={clip_folders[1]}", f"output_dir={tmp_path}", "train_data.n_sample_frames=8",
        "validation_data.num_frames=8", "--dry-run")
    assert code == 0, capsys.readouterr().err
