"""Samplers: each solves the equation the base was trained for; "base" is the base's own scheduler."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from models.base import load_base
from rendering.samplers import SAMPLERS, SCHEDULERS, make_scheduler
from rendering.sampling import Rendering, denoise, render
from rendering.step_check import check_steps
from training.config import KEYS
from utils.prompts import Prompt
from utils.video import video_metadata, write_video

HOW = Rendering(16, 16, 2, 12, 1.0)
PROMPTS = [Prompt(3, "a cat"), Prompt(4, "a dog")]
NOISE_LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                "clip_sample": False}
LEVELS = {key: value for key, value in NOISE_LEVELS.items() if key != "clip_sample"}


@pytest.fixture(scope="module")
def pipeline(tiny_base):
    return load_base(str(tiny_base)).pipeline


@pytest.fixture(params=["epsilon", "v_prediction", "zero terminal SNR"])
def own_scheduler(request, pipeline):
    """The base's scheduler, in turn of each kind of base."""
    before = pipeline.scheduler
    zero_snr = request.param.startswith("zero")
    pipeline.scheduler = DDIMScheduler(
        **NOISE_LEVELS, prediction_type="v_prediction" if zero_snr else request.param,
        rescale_betas_zero_snr=zero_snr, timestep_spacing="leading" if zero_snr else "trailing")
    yield pipeline.scheduler
    pipeline.scheduler = before


def test_all_samplers_arrive_at_the_same_video(pipeline, own_scheduler):
    """In many steps; one that took epsilon for v, or began below the last timestep, would be far away."""
    latents = {sampler: denoise(pipeline, PROMPTS, replace(HOW, sampler=sampler)) for sampler in SCHEDULERS}
    scale = latents["ddim"].std()
    apart = {sampler: ((mine - latents["ddim"]).abs().mean() / scale).item()
             for sampler, mine in latents.items()}
    assert scale > 0.1 and max(apart.values()) < 0.2, apart


@pytest.mark.parametrize("spacing", [{"timestep_spacing": "leading"}, {}])
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_zero_terminal_snr_starts_from_pure_noise(sampler, spacing):
    own = DDIMScheduler.from_config({**NOISE_LEVELS, **spacing, "rescale_betas_zero_snr": True})
    scheduler = make_scheduler(own, sampler)
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == 999 and scheduler.config.timestep_spacing == "trailing"


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_folder_that_diffusers_has_written_is_sampled_as_the_folder_it_was_made_of(sampler, tmp_path):
    said = {"_class_name": "DDIMScheduler", **NOISE_LEVELS, "steps_offset": 1}   # as on the hub
    (tmp_path / "scheduler_config.json").write_text(json.dumps(said))
    scheduler = DDIMScheduler.from_pretrained(tmp_path)
    scheduler.save_pretrained(tmp_path / "converted")
    schedulers = [make_scheduler(own, sampler)
                  for own in (scheduler, DDIMScheduler.from_pretrained(tmp_path / "converted"))]
    assert "leading" in (tmp_path / "converted/scheduler_config.json").read_text()
    for made in schedulers:
        made.set_timesteps(50)
    assert torch.equal(*(made.timesteps for made in schedulers))
    expected = {"dpm": 999, "euler": 999, "unipc": 999, "ddim": 981}
    assert round(float(schedulers[0].timesteps[0])) == expected[sampler]


@pytest.mark.parametrize("said", [{}, {"clip_sample": True, "thresholding": True}])
@pytest.mark.parametrize("own", [
    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler,
    UniPCMultistepScheduler])
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_latents_are_never_clipped(sampler, own, said):
    """The folders of most schedulers do not say clip_sample, and DDIMScheduler then clips to -1 and 1, which
    is the range of pixels."""
    scheduler = make_scheduler(own.from_config({"_class_name": own.__name__, **LEVELS, **said}), sampler)
    scheduler.set_timesteps(3)
    latents = torch.full((1, 4, 2, 8, 8), 5.0) * torch.tensor([1, -1, 0.5, 0]).view(1, 4, 1, 1, 1)
    sample = latents * getattr(scheduler, "init_noise_sigma", 1)
    for timestep in scheduler.timesteps:   # no noise is left at the end, so the clean latents come out
        clean = scheduler.scale_model_input(sample, timestep)
        level = scheduler.alphas_cumprod[int(timestep.round())] if sampler != "euler" else \
            1 / (1 + scheduler.sigmas[scheduler.index_for_timestep(timestep)] ** 2)
        noise = (clean - level.sqrt() * latents) / (1 - level).sqrt()
        sample = scheduler.step(noise, timestep, sample).prev_sample
    torch.testing.assert_close(sample, latents, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_spacing_that_the_base_names_is_kept(sampler):
    own = DDIMScheduler(**NOISE_LEVELS, timestep_spacing="trailing")
    assert make_scheduler(own, sampler).config.timestep_spacing == "trailing"


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_few_steps_give_numbers(pipeline, own_scheduler, sampler, num_steps):
    latents = denoise(pipeline, PROMPTS, replace(HOW, num_inference_steps=num_steps, sampler=sampler))
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_video_does_not_depend_on_what_was_rendered_before_or_beside_it(pipeline, sampler):
    how = replace(HOW, num_inference_steps=3, sampler=sampler)
    own = pipeline.scheduler
    first = render(pipeline, PROMPTS[:1], how)
    render(pipeline, PROMPTS[1:], replace(how, sampler="dpm", num_inference_steps=5))
    assert np.array_equal(render(pipeline, PROMPTS[:1], how), first) and pipeline.scheduler is own
    assert np.abs(render(pipeline, PROMPTS, how)[:1].astype(int) - first).max() <= 2


@pytest.mark.parametrize("own, sampler", [
    (EulerAncestralDiscreteScheduler(**LEVELS), "base"), (DDPMScheduler(**LEVELS), "base"),
    (DPMSolverMultistepScheduler(**LEVELS, algorithm_type="sde-dpmsolver++"), "dpm")])
def test_scheduler_that_adds_noise_gives_a_video_that_no_other_changes(pipeline, own, sampler):
    before, how = pipeline.scheduler, replace(HOW, num_inference_steps=3, sampler=sampler)
    pipeline.scheduler = own
    try:
        both = denoise(pipeline, PROMPTS, how)
        single = torch.cat([denoise(pipeline, [prompt], how) for prompt in PROMPTS])
        again = denoise(pipeline, PROMPTS[::-1], how).flip(0)
    finally:
        pipeline.scheduler = before
    assert (both - single).abs().max() < 1e-4 * single.abs().max() and (both - again).abs().max() < 1e-4
    assert (both[0] - both[1]).abs().mean() > 0.1


@pytest.mark.parametrize("sampler, num_steps, most", [
    ("ddim", 333, 333), ("ddim", 334, 333), ("ddim", 700, 500), ("ddim", 1000, 999), ("base", 501, 500),
    ("dpm", 501, 501), ("dpm", 999, 999), ("dpm", 1000, 999), ("unipc", 1000, 999), ("euler", 1000, 1000)])
def test_steps_that_a_sampler_cannot_take_are_refused_with_the_next_number_that_it_can(
        tiny_base, tmp_path, sampler, num_steps, most):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    DDIMScheduler(**NOISE_LEVELS, steps_offset=1).save_pretrained(folder / "scheduler")
    problems = check_steps(num_steps, sampler, folder, "--steps")
    assert problems == [] if most == num_steps else f"Take {most} steps" in problems[0], problems
    assert check_steps(most, sampler, folder, "--steps") == []


def test_steps_of_an_image_model_are_those_of_the_scheduler_of_its_adapter(animatediff):
    """The image model's own scheduler would begin at level 501 of 1000."""
    _, images, adapter = animatediff
    assert "Take 500 steps" in check_steps(501, "base", images, "--steps")[0]
    assert check_steps(501, "base", images, "--steps", adapter) == []


def test_base_is_the_scheduler_of_the_folder():
    own = PNDMScheduler()
    assert make_scheduler(own, "base") is own and "base" not in SCHEDULERS


def test_config_takes_the_same_samplers():
    assert set(KEYS["validation_data.sampler"].constraints["choices"]) == set(SAMPLERS)


def test_file_of_an_earlier_version_counts_as_made_with_the_base_own_sampler(tiny_base, run_main, tmp_path):
    arguments = ["-m", tiny_base, "-o", tmp_path, "-r", "16", "-d", "2", "--steps", "1", "-p", "a cat"]
    path = tmp_path / "a_cat_seed0.mp4"
    run_main("generate_pretrained", *arguments, "--sampler", "base")
    made = video_metadata(path)
    assert made.pop("sampler") == "base"
    write_video(path, np.zeros((2, 16, 16, 3), np.uint8), 8, made)
    _, out, _ = run_main("generate_pretrained", *arguments, "--sampler", "base")
    assert "1 of 1 videos are there already" in out
    code, _, err = run_main("generate_pretrained", *arguments)
    assert code == 2 and "(sampler base, not dpm)" in err and "--overwrite" in err
    assert run_main("generate_pretrained", *arguments, "--overwrite")[0] == 0
    assert video_metadata(path)["sampler"] == "dpm"
