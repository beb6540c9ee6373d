"""Plans: all that is wrong is said at once, before a weight is loaded; the dry run estimates the needs."""

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.tokens import unseen_captions
from tests.conftest import ROOT, draw_frames, write_clip
from tests.training.test_config import PUBLISHED
from training import plan as plan_module
from training.config import Config
from training.config_loading import examine_config, load_config
from training.footprint import Footprint
from training.plan import (
    check_disk,
    disk_needs,
    fastest_way,
    make_plan,
    negative_prompt,
    sample_fps,
    sample_prompts,
    step_footprint,
)
from training.plan_report import busy_remark, estimate_report, plan_report
from utils.errors import UserError

HUB_ID = "nobody/a-base-that-is-not-here"


@pytest.fixture
def config(write_config) -> Config:
    return load_config(write_config())[0]


@pytest.fixture
def own_clips(clip_folders, tmp_path) -> tuple[Path, Path]:
    """Copies of the clips, to be spoilt."""
    for folder in clip_folders:
        shutil.copytree(folder, tmp_path / folder.name)
    return tuple(tmp_path / folder.name for folder in clip_folders)


@pytest.fixture
def own_base(tiny_base, tmp_path) -> Path:
    """A copy of the base, to be spoilt."""
    return shutil.copytree(tiny_base, tmp_path / "base")


def problems_of(config: Config, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        make_plan(config, **options)
    return list(caught.value.problems)


def with_data(config: Config, **changes) -> Config:
    return replace(config, train_data=replace(config.train_data, **changes))


# ----------------------------------------------------------------------------------------- everything at once

def test_everything_wrong_is_said_at_once(write_config, own_clips, own_base, tmp_path):
    exemplars, regularization = own_clips
    (exemplars / "broken.mp4").write_text("not a video")
    (exemplars / "broken.txt").write_text("V*")
    shutil.rmtree(regularization)
    (own_base / "vae" / "config.json").unlink()
    path = write_config(f"train_data.path={exemplars}", f"train_data.class_path={regularization}", "subjct=x",
                        f"pretrained_model_path={own_base}",
                        f"validation_data.prompt={tmp_path / 'gone.txt'}",
                        "validation_steps=2", "learning_rate=-1")
    config, _, known, unknown = examine_config(path)
    problems = problems_of(config, known_problems=known, unknown_keys=unknown)
    for words in ("subjct is not a key", "learning_rate is -1", "vae/config.json: is missing",
                  "broken.mp4: is not a video", f"train_data.class_path: {regularization} does not exist",
                  "gone.txt: cannot be read"):
        assert any(words in problem for problem in problems), words
    assert len(problems) == 6


def test_keys_may_stand_on_both_sides_of_a_flag(write_config, run_main):
    code, _, err = run_main("train_model", "--config", write_config(), "seed=a", "--dry-run",
                            "max_train_steps=b")
    assert code == 2 and "seed" in err and "max_train_steps" in err and len(err.splitlines()) == 2, err


def test_script_says_everything_at_once_and_ends_with_2(write_config, own_clips, run_main, tmp_path):
    (own_clips[0] / "spin_1.mp4").write_bytes((own_clips[0] / "spin_1.mp4").read_bytes()[:-50])
    path = write_config("train_data.n_sample_frame=4", f"train_data.path={own_clips[0]}")
    code, out, err = run_main("train_model", "--config", path)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"{path}: train_data.n_sample_frame is not a key. Did you mean train_data.n_sample_frames?",
        f"{own_clips[0] / 'spin_1.mp4'}: is cut off: the file ends before the video does. Copy it again."]
    assert not list((tmp_path / "results").glob("spin-*"))


def test_clips_are_not_called_short_for_a_window_that_is_misspelt(write_config):
    path = write_config("train_data.n_sample_frames=0")   # the default, 16, is longer than these clips
    config, _, known, unknown = examine_config(path)
    assert problems_of(config, known_problems=known, unknown_keys=unknown) == [
        f"{path}: train_data.n_sample_frames is 0. It must be above zero."]


def test_missing_path_of_exemplars_is_said_with_the_rest(write_config):
    path = write_config("train_data.path=null", "trainable_modules=[nothing]")
    config, _, known, unknown = examine_config(path)
    problems = problems_of(config, known_problems=known, unknown_keys=unknown)
    assert len(problems) == 2
    assert "train_data.path is not set" in problems[0] and "'nothing' matches no weight" in problems[1]


def test_base_on_the_hub_is_not_fetched_while_anything_is_wrong(config, monkeypatch, tmp_path):
    fetched = []
    monkeypatch.setattr(plan_module, "find_base",
                        lambda base, download=True, adapter=None: fetched.append(download) and None)
    config = replace(config, pretrained_model_path=HUB_ID)
    problems = problems_of(with_data(config, path=str(tmp_path / "nowhere")))
    assert len(problems) == 1 and fetched == [False]


def test_base_on_the_hub_is_fetched_when_all_is_well(config, monkeypatch, tiny_base):
    fetched = []

    def find_base(base: str, download: bool = True, adapter: str | None = None) -> Path | None:
        fetched.append(download)
        return tiny_base if download else None

    monkeypatch.setattr(plan_module, "find_base", find_base)
    plan = make_plan(replace(config, pretrained_model_path=HUB_ID))
    assert fetched == [False, True] and plan.base_folder == tiny_base and plan.trained_names
    # of this base's stride, not the typical
    assert {clip.size for clip in plan.exemplars} == {(64, 64), (80, 48)}


def test_dry_run_does_not_fetch_a_base(config, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    plan = make_plan(replace(config, pretrained_model_path=HUB_ID), download=False)
    assert plan.base_folder is None
    assert estimate_report(plan) == (
        f"{HUB_ID} is not on this machine yet, so memory and disk are not estimated. "
        f"Training downloads it; for an estimate before that: hf download {HUB_ID}")


# -------------------------------------------------------------------------------------- one problem at a time

def test_group_that_matches_nothing_is_said(config):
    (problem,) = problems_of(replace(config, trainable_modules=["cross", "temporl"]))
    assert problem.startswith("trainable_modules: 'temporl' matches no weight of the base. "
                              "Known groups: cross, self,")


def test_base_that_does_not_exist_is_said(config, tmp_path):
    (problem,) = problems_of(replace(config, pretrained_model_path=str(tmp_path / "nowhere")))
    assert f"{tmp_path / 'nowhere'}: does not exist. Name a diffusers folder or a hub id" in problem


@pytest.mark.parametrize("part", ["unet/config.json", "vae/config.json", "text_encoder/config.json",
                                  "tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json",
                                  "unet/diffusion_pytorch_model.safetensors",
                                  "text_encoder/model.safetensors"])
def test_missing_part_of_the_base_is_named(config, own_base, part):
    (own_base / part).unlink()
    (problem,) = problems_of(replace(config, pretrained_model_path=str(own_base)))
    assert problem.startswith(f"{own_base / part}: is missing.")


def test_base_that_is_not_text_to_video_is_said(config, own_base):
    index = json.loads((own_base / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (own_base / "model_index.json").write_text(json.dumps(index))
    (problem,) = problems_of(replace(config, pretrained_model_path=str(own_base)))
    assert f"{own_base}: is a StableDiffusionXLPipeline with a UNet2DConditionModel. This program trains" in \
        problem


@pytest.mark.parametrize("part", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_damaged_part_of_the_base_is_named(config, own_base, part, content):
    (own_base / part).write_bytes(content)
    (problem,) = problems_of(replace(config, pretrained_model_path=str(own_base)))
    assert problem.startswith(f"{own_base / part}: is damaged.")


@pytest.mark.parametrize("base", ["x" * 300, "x" * 5000, "a/b--c..d"])
def test_base_that_cannot_be_a_name_is_said(config, base):
    (problem,) = problems_of(replace(config, pretrained_model_path=base))
    assert problem.startswith(f"{base}: ") and ("does not exist" in problem or "neither a folder" in problem)


@pytest.mark.parametrize("weights", ["unet/diffusion_pytorch_model.safetensors",
                                     "text_encoder/model.safetensors",
                                     "vae/diffusion_pytorch_model.safetensors"])
def test_base_with_cut_off_weights_is_said(config, own_base, weights):
    weights = own_base / weights
    weights.write_bytes(weights.read_bytes()[:-8])
    (problem,) = problems_of(replace(config, pretrained_model_path=str(own_base)))
    assert problem.startswith(f"{weights}: cannot be read")


def test_sample_size_that_the_base_cannot_make_is_said(config):
    config = replace(config, validation_data=replace(config.validation_data, width=60))
    assert problems_of(config) == [
        "validation_data: 60x64 pixels: both must be multiples of 8 for this base."]


def test_trained_size_that_the_network_cannot_take_is_said(config):
    assert problems_of(with_data(config, use_bucketing=False, height=72)) == [
        "train_data: 64x72 pixels: both must be multiples of 16 for this base."]


def test_trained_size_is_free_with_bucketing(config):
    sizes = {side for clip in make_plan(with_data(config, height=71)).exemplars for side in clip.size}
    assert all(side % 16 == 0 for side in sizes)


@pytest.mark.parametrize("changes, words", [
    ({"report_to": "wandb"}, "report_to: wandb needs the package wandb. Install it: pip install wandb"),
    ({"report_to": "tensorboard"}, "report_to: tensorboard needs the package tensorboard."),
    ({"use_8bit_adam": True}, "use_8bit_adam: true needs the package bitsandbytes."),
])
def test_optional_package_that_is_missing_is_said(config, monkeypatch, changes, words):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: (
        None if name in ("wandb", "tensorboard", "bitsandbytes") else find_spec(name)))
    assert words in problems_of(replace(config, **changes))[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has an NVIDIA GPU")
def test_8bit_adam_without_a_gpu_is_said(config):
    assert "use_8bit_adam: true needs an NVIDIA GPU, and there is none here. Set it to false." in \
        problems_of(replace(config, use_8bit_adam=True))


@pytest.mark.parametrize("environment, changes, words", [
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "DeepSpeed is not supported. configs/accelerate/zero2.yaml"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, {}, "Set fsdp_version: 2"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, {"validation_steps": 5}, "render from the checkp"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, {"use_8bit_adam": True}, "used with FSDP"),
])
def test_launch_that_cannot_work_is_said(config, monkeypatch, environment, changes, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words in "\n".join(problems_of(replace(config, **changes)))


def test_launch_with_fsdp_is_accepted(config, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert make_plan(replace(config, validation_steps=None)).trained_names


@pytest.mark.parametrize("key", ["output_dir", "cached_latent_dir"])
def test_folder_that_cannot_be_written_is_said(config, tmp_path, key):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "sub"
    assert problems_of(replace(config, **{key: str(folder)})) == [
        f"{folder}: cannot be written (Not a directory). Choose another folder."]


def test_disk_too_small_for_the_run_is_said(config, monkeypatch):
    plan = make_plan(config)
    assert check_disk(plan) == []
    monkeypatch.setattr(plan_module, "free_bytes", lambda path: 5000)
    (problem,) = check_disk(plan)
    assert problem.startswith(f"{config.output_dir}: the run will write ")
    assert problem.endswith("5 kB are free. Make room, or keep fewer checkpoints (checkpointing_steps, "
                            "keep_checkpoints).")


def test_disk_needs_count_what_is_kept_and_what_is_there(config):
    def results(num_written: int = 0, **changes) -> int:
        wanted = {"checkpointing_steps": 1, "max_train_steps": 10, **changes}
        return disk_needs(make_plan(replace(config, **wanted)), num_written)[1]

    motion = results(checkpointing_steps=None)
    checkpoint = (results() - motion) // 10
    # while a new checkpoint is written the old ones are still there
    assert results(keep_checkpoints=2) == motion + 3 * checkpoint
    assert results(keep_checkpoints=20) == results() and results(4) == motion + 6 * checkpoint


# --------------------------------------------------------------------------------------------------- the plan

def test_plan_selects_the_groups_of_the_base(config):
    plan = make_plan(config)
    assert list(plan.selected) == ["cross", "temporal", "temp_convs"]
    assert plan.trained_names == sorted(set().union(*plan.selected.values()))
    assert plan.strides == (8, 16)


def test_plan_loads_no_weights(config, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "load_state_dict",
                        lambda *_, **__: pytest.fail("weights were loaded"))
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_, **__: pytest.fail("a network was moved"))
    assert make_plan(config).num_elements


def test_sample_prompts_have_the_placeholder_and_the_seed_of_the_run(config):
    samples = replace(config.validation_data, prompt=["a V* cat, sitting", "a V* dog|a man"])
    prompts = sample_prompts(replace(config, validation_data=samples, validation_steps=2))
    assert [(prompt.seed, prompt.text) for prompt in prompts] == [
        (64, "a sks cat, sitting"), (64, "a sks dog"), (64, "a man")]


def test_negative_prompt_of_samples_has_the_placeholder(config):
    samples = replace(config.validation_data, prompt=["a cat"], negative_prompt="the V* dance")
    assert negative_prompt(replace(config, validation_data=samples)) == "the sks dance"
    samples = replace(samples, negative_prompt="the V2* dance")
    with pytest.raises(UserError, match="asks for V2"):
        make_plan(replace(config, validation_data=samples, validation_steps=[2]))


def test_sample_prompts_may_lie_in_a_file(config, tmp_path):
    (tmp_path / "prompts.txt").write_text("7,a V* cat\na dog")
    samples = replace(config.validation_data, prompt=[str(tmp_path / "prompts.txt")])
    prompts = sample_prompts(replace(config, validation_data=samples, validation_steps=[2]))
    assert [(prompt.seed, prompt.text) for prompt in prompts] == [(7, "a sks cat"), (64, "a dog")]


def test_long_list_of_sample_prompts_is_cut_and_that_is_said(config, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(f"{seed},a cat" for seed in range(300)))
    samples = replace(config.validation_data, prompt=[str(tmp_path / "prompts.txt")])
    config = replace(config, validation_data=samples, validation_steps=2)
    plan = make_plan(config)
    assert [prompt.seed for prompt in plan.prompts] == list(range(16))
    assert "samples: the first 16 of 300 prompts (validation_data.max_prompts)" in plan_report(plan)
    plan = make_plan(replace(config, validation_data=replace(samples, max_prompts=300)))
    assert len(plan.prompts) == 300 and "max_prompts" not in plan_report(plan)


def test_samples_play_at_the_speed_of_the_exemplars(config):
    plan = make_plan(config)
    assert {clip.fps for clip in plan.exemplars} == {8} and sample_fps(plan) == 8
    slow = make_plan(with_data(config, fps=24))   # two clips were recorded at 8, one at 24
    assert sorted(clip.fps for clip in slow.exemplars) == [8, 8, 24] and sample_fps(slow) == 8


def test_pictures_beside_clips_have_no_speed(config, tmp_path):
    for seed in range(4):   # more than there are clips; a picture is shown for a tenth of a second
        Image.fromarray(draw_frames(1, 64, 64, seed)[0]).save(tmp_path / f"{seed}.png")
    both = replace(config, dataset_types=["folder", "image"], train_data=replace(
        config.train_data, class_path=None, image_dir=str(tmp_path), single_img_prompt="a V* man", fps=24))
    assert sorted(clip.fps for clip in make_plan(both).exemplars) == [8, 8, 10, 10, 10, 10, 24]
    assert sample_fps(make_plan(both)) == 8
    assert sample_fps(make_plan(replace(both, dataset_types=["image"]))) == 10


def test_report_says_the_rate_of_the_motion(config):
    assert "motion is learned at 8 frames per second; samples are written at 8" in \
        plan_report(make_plan(config))


def test_report_says_that_there_is_no_regularization(config):
    assert "train_data.class_path is not set: training without regularization" in \
        plan_report(make_plan(with_data(config, class_path=None)))
    assert "prior_preservation is off: training without regularization" in \
        plan_report(make_plan(replace(config, prior_preservation=False)))


def test_report_counts_tensors_and_parameters_of_each_group(config):
    plan = make_plan(config)
    lines = plan_report(plan).splitlines()
    for group, names in plan.selected.items():
        number = sum(plan.num_elements[name] for name in names)
        (line,) = [line for line in lines if line.split()[:1] == [group]]
        assert line.split()[1:4] == [str(len(names)), "tensors", f"{number:,}"]


def test_regularization_does_not_change_the_exemplars(config, own_clips):
    exemplars = make_plan(config).exemplars
    for number in (1, 4):
        write_clip(own_clips[1] / f"more_{number}.mp4", 5, seed=number)
        more = make_plan(with_data(config, class_path=str(own_clips[1])))
        assert more.exemplars == exemplars


def test_published_config_starts_apart_from_its_paths(tmp_path, tiny_base, run_main):
    """Only paths are given anew; sizes, rates, precision and every key without effect stay as published."""
    write_clip(tmp_path / "exemplars" / "dance.mp4", 17, 128, 96, 24, caption="a man doing the sks dance")
    write_clip(tmp_path / "regularization" / "a_man_walking.mp4", 16, 96, 96, 24, seed=2)
    (tmp_path / "config.yaml").write_text(PUBLISHED)
    (tmp_path / "prompts.txt").write_text("64,a cat doing the sks dance")
    code, out, err = run_main(
        "train_model", "--config", tmp_path / "config.yaml", f"pretrained_model_path={tiny_base}",
        f"output_dir={tmp_path / 'results'}", f"train_data.path={tmp_path / 'exemplars'}",
        f"train_data.class_path={tmp_path / 'regularization'}",
        f"validation_data.prompt={tmp_path / 'prompts.txt'}", "--dry-run")
    assert (code, err) == (0, "")
    assert "-> 448x336 @ 24 fps, 17 frames, 2 windows" in out and "without effect here: " in out


# ---------------------------------------------------------------------------------------------- the remarks

def test_report_says_where_and_how_it_is_computed(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("training.plan_report.free_memory", lambda: 23_600_000_000)
    (line,) = [line for line in plan_report(make_plan(config)).splitlines() if line.startswith("on ")]
    assert line.endswith(", 23.6 GB free: float32, exemplars and regularization together, activations kept; "
                         "a window shows 0.5 s")
    alone = plan_report(make_plan(with_data(replace(config, mixed_precision="bf16"), class_path=None)))
    assert "free: bf16, activations kept; a window shows 0.5 s" in alone


def test_dry_run_names_the_gpu(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: "NVIDIA X")
    for name in ("training.plan.free_memory", "training.plan_report.free_memory"):
        monkeypatch.setattr(name, lambda: 24_000_000_000)
    assert "on NVIDIA X, 24 GB free: float32, exemplars and regularization together, activations kept; " in \
        plan_report(make_plan(config))


def test_step_that_does_not_fit_is_said(config, monkeypatch):
    assert "which may not do" not in plan_report(make_plan(config))
    monkeypatch.setattr(plan_module, "free_memory", lambda: 1000)
    assert "which may not do: set gradient_checkpointing: true, lower train_data.width" in \
        plan_report(make_plan(config))
    assert "which may not do: lower train_data.width, .height or .n_sample_frames" in \
        plan_report(make_plan(replace(config, gradient_checkpointing=True)))


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(),
                    reason="this machine has a GPU")
@pytest.mark.parametrize("load, threads, words", [
    (0.3, None, ""), (2.2, "2", ""), (1.1, None, "1 of 4 cores busy: OMP_NUM_THREADS=3 "),
    (9.0, None, "4 of 4 cores busy: OMP_NUM_THREADS=1 ")])
def test_busy_cores_are_remarked_on(monkeypatch, load, threads, words):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0, 0))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert words in "".join(busy_remark()) and bool(words) == bool(busy_remark())


def test_large_base_on_a_cpu_is_said(config, monkeypatch):
    assert "train on a CPU" not in plan_report(make_plan(config))
    monkeypatch.setattr("training.plan_report.MOST_ON_CPU", 1000)
    assert "M parameters is about to train on a CPU" in plan_report(make_plan(config))


def test_temporal_layers_that_train_on_single_frames_are_said(config):
    words = "every window is a single frame, and the temporal layers train on it"
    single = with_data(config, train_weights="spatial")
    assert words not in plan_report(make_plan(config)) and words in plan_report(make_plan(single))
    assert words not in plan_report(make_plan(replace(single, trainable_modules=["cross", "self"])))


def test_layers_of_single_frames_are_said(config):
    assert "single frames" not in plan_report(make_plan(config))
    spatial = with_data(replace(config, trainable_modules=["cross"]), train_weights="spatial")
    for chosen, words in (("spatial", "single frames skip the temporal layers"),
                          ("all", "single frames go through the temporal layers")):
        assert words in plan_report(make_plan(with_data(spatial, single_frame_layers=chosen)))


@pytest.mark.parametrize("modules", [["cross", "temp_convs"], ["all"], ["transformer_in"]])
def test_temporal_layers_cannot_train_on_single_frames_that_skip_them(config, modules):
    config = with_data(replace(config, trainable_modules=modules), single_frame_layers="spatial")
    make_plan(config)   # on windows of several frames they can
    problems = problems_of(with_data(config, train_weights="spatial"))
    assert len(problems) == 1 and "single_frame_layers: spatial skips the temporal layers" in problems[0]
    assert "trainable_modules: [cross, self], or single_frame_layers: all" in problems[0]


@pytest.mark.parametrize(("prompts", "is_said"), [
    (["a cat doing the V* dance"], True), (["a cat"], True), (["a V* dance", "a V* Spin"], False),
    (["a cat doing the sks spin"], False), ([], False)])
def test_samples_that_ask_for_another_motion_are_said(config, prompts, is_said):
    config = replace(config, validation_data=replace(config.validation_data, prompt=prompts))
    said = plan_report(make_plan(config))
    assert ("the captions teach \"V* spin\", and no sample prompt asks for it" in said) == is_said
    assert ("set validation_data.prompt=\"a man doing the V* spin\"" in said) == is_said


def test_caption_that_the_text_encoder_does_not_see_whole_is_said(config, own_clips, tiny_base):
    """The tiny base has a token for each byte of a word, and takes 75 of them."""
    write_clip(own_clips[0] / "long.mp4", seed=7, caption=f"V* spin {'x' * 66} of a cat")
    plan = make_plan(with_data(config, path=str(own_clips[0])))
    assert list(plan.unseen.values()) == ["a cat"]
    assert 'too long for the text encoder, not seen: "a cat"' in plan_report(plan)
    assert make_plan(config).unseen == {}
    # more bytes than tokens; exactly as many
    assert unseen_captions(tiny_base, ["é " * 37, "a" * 75]) == {}


def test_tokenizer_that_cannot_be_loaded_is_said(config, own_clips, own_base):
    write_clip(own_clips[0] / "long.mp4", seed=7, caption="V* spin " * 20)
    (own_base / "tokenizer" / "vocab.json").write_text("{")
    for path in own_base.glob("tokenizer/tokenizer.json"):
        path.write_text("{")
    config = with_data(replace(config, pretrained_model_path=str(own_base)), path=str(own_clips[0]))
    (problem,) = problems_of(config)
    assert problem.startswith(f"{own_base / 'tokenizer'}: cannot be loaded (")


# ---------------------------------------------------------------------------------------------- the estimates

def test_disk_need_grows_with_checkpoints_and_precision(config):
    plan = make_plan(replace(config, checkpointing_steps=None))
    number = sum(plan.num_elements[name] for name in plan.trained_names)
    assert disk_needs(plan)[1] == number * 2   # fp16 motion weights
    plan = make_plan(replace(config, checkpointing_steps=[2, 4, 99], motion_dtype="fp32"))
    assert disk_needs(plan)[1] == 2 * number * (12 + 4) + number * 4   # step 99 is never reached


@pytest.mark.parametrize("num_shifts", [0, 2])
def test_cache_is_as_large_as_estimated(config, tiny_base, num_shifts, tmp_path):
    from models.base import load_base
    from training.inputs import encode_inputs
    from utils.tensor_files import read_tensors

    config.train_data.num_shifts = num_shifts
    plan = make_plan(config)
    encode_inputs(load_base(str(tiny_base)), plan.clips, tmp_path / "cache")
    made = sum(tensor.nbytes for path in (tmp_path / "cache").glob("*.safetensors")
               for tensor in read_tensors(path).values())
    assert made == disk_needs(plan)[0]


def test_cache_of_the_bundled_base_is_estimated_with_its_ten_channels(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = make_plan(load_config(ROOT / "config.yaml")[0])
    cells = sum(len(clip.shifts) * len(clip.frames) * 8 * 8 for clip in plan.clips)
    captions = {caption for clip in plan.clips for caption in clip.captions}
    assert disk_needs(plan)[0] == 4 * (2 * 10 * cells + len(captions) * 32 * 192)


def test_dry_run_estimates_and_makes_no_run(write_config, run_main, tmp_path):
    code, out, err = run_main("train_model", "--config", write_config(), "--dry-run")
    assert (code, err) == (0, "")
    assert "3 exemplar clips" in out and "2 regularization clips" in out
    assert "memory, estimated: " in out and "disk, at most: cache " in out and " are free" in out
    assert not (tmp_path / "results").exists()


def test_dry_run_of_several_processes_speaks_once(write_config, run_main, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run_main("train_model", "--config", write_config(), "--dry-run") == (0, "", "")


def test_memory_estimate_counts_what_trains(config):
    from models.base_folder import unet_config
    from models.zeroscope import ZEROSCOPE
    from training.footprint import training_footprint

    plan = make_plan(config)
    layers = list(ZEROSCOPE.layers(unet_config(plan.base_folder)))
    trained = sum(plan.num_elements[name] for name in plan.trained_names)
    total = sum(plan.num_elements.values())

    def estimate(*others, **more) -> Footprint:
        return training_footprint(layers, plan.num_elements, plan.num_trained, 1, 4, (8, 8),
                                  *others, **more)

    half = estimate("bf16", False, False, True)
    assert (half.trained_weights, half.optimizer) == (trained * 4, trained * 8)
    assert 0 < half.gradients <= trained * 4
    assert half.frozen_weights == (total - trained) * 2
    full = estimate("no", True, True, True)
    assert full.frozen_weights == (total - trained) * 4 and full.optimizer == trained * 2
    assert half.kernels > 0 == full.kernels == estimate("bf16", False, False, on_cpu=False).kernels


def test_several_processes_have_all_gradients_from_the_start(config, monkeypatch):
    plan = make_plan(config)
    trained = sum(plan.num_elements[name] for name in plan.trained_names)
    alone = step_footprint(plan, apart=False, recompute=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    one_of_two = step_footprint(plan, apart=False, recompute=True)
    assert one_of_two.gradients == trained * 4 and one_of_two.total() > alone.total()


def test_activations_are_recomputed_as_the_config_says_or_where_memory_is_small(config, monkeypatch):
    plan = make_plan(replace(config, gradient_checkpointing=None))
    needed = plan.footprints[True, False].total()
    for free, expected in ((needed, True), (2 * needed, False)):
        monkeypatch.setattr(plan_module, "free_memory", lambda free=free: free)
        assert fastest_way(plan.footprints)[1] == expected
        for given in (True, False):
            assert make_plan(replace(config, gradient_checkpointing=given)).way[1] == given


@pytest.fixture
def sized(monkeypatch):
    """Return a function that gives a step, by (apart, recompute), the gigabytes named, of a GPU's as many."""
    def give(gigabytes: dict[tuple[bool, bool], float], free: float) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(plan_module, "free_memory", lambda: free * 1e9 / plan_module.USABLE_SHARE)
        monkeypatch.setattr(plan_module, "step_footprint", lambda plan, apart, recompute: Footprint(
            int(gigabytes[apart, recompute] * 1e9), 0, 0, 0, 0, 0))

    return give


@pytest.mark.parametrize(("free", "apart", "recompute", "said"), [
    (57, False, False, "56 GB"), (36, True, False, "35 GB"), (20, False, True, "18 GB"),
    (14, True, True, "13 GB"), (1, True, True, "13 GB")])
def test_step_is_taken_in_the_fastest_way_that_fits(config, sized, free, apart, recompute, said):
    sized({(False, False): 56, (True, False): 35, (False, True): 18, (True, True): 13}, free)
    plan, alone = (make_plan(replace(config, gradient_checkpointing=None, prior_preservation=prior))
                   for prior in (True, False))
    assert plan.way == (apart, recompute) and alone.way == (False, free < 56)
    assert f"memory, estimated: {said}" in estimate_report(plan)
    recomputed, kept = (make_plan(replace(config, gradient_checkpointing=given)) for given in (True, False))
    assert recomputed.way == (free < 18, True) and kept.way == (free < 56, False)


def test_roles_go_apart_on_a_cpu_unless_a_pass_is_small(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan, alone = make_plan(config), make_plan(replace(config, prior_preservation=False))
    largest = max(plan.exemplars + plan.regularization, key=lambda clip: clip.window * math.prod(clip.size))
    cells = largest.window * math.prod(side // plan.strides[0] for side in largest.size)
    fitting = plan_module.SMALL_PASS // cells
    batches = [make_plan(replace(config, train_batch_size=size)) for size in (1, fitting, fitting + 1)]
    assert [batch.way[0] for batch in batches] == [False, False, True]
    assert alone.way == (False, False)


def test_dry_run_does_not_wait_for_diffusers(write_config):
    arguments = ["train_model.py", "--config", str(write_config()), "--dry-run"]
    code = (f"import sys, runpy; sys.argv = {arguments}\n"
            f"runpy.run_path('train_model.py', run_name='__main__')\n"
            f"assert not {{'diffusers', 'transformers', 'accelerate'}} & set(sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "memory, estimated" in result.stdout


def test_base_without_a_vocabulary_is_refused(config, tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (base / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="tokenizer: its vocabulary is missing"):
        make_plan(replace(config, pretrained_model_path=str(base)))


def test_unknown_prediction_is_refused_before_anything_is_loaded(config, tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("epsilon", "flow"))
    with pytest.raises(UserError, match="prediction_type 'flow'"):
        make_plan(replace(config, pretrained_model_path=str(base)))
