"""A base with another noise schedule is refused: on resume, with --base, and when motions are combined."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file

from models.base import load_base
from models.motion_weights import read_motion_info
from models.same_base import NOISE_SCHEDULE, has_other_unet, noise_schedule, schedule_changes
from utils.tensor_files import read_metadata, read_tensors, write_tensors

CHANGES = "beta_end was 0.012, is 0.02, prediction_type was epsilon, is v_prediction"


@pytest.fixture(scope="module")
def other_schedule(tiny_base, tmp_path_factory) -> Path:
    """The base with the same weights and another noise schedule."""
    folder = shutil.copytree(tiny_base, tmp_path_factory.mktemp("bases") / "other")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text())
                               | {"beta_end": 0.02, "prediction_type": "v_prediction"}))
    return folder


def with_schedule(motion: Path, path: Path, schedule: str | None) -> Path:
    """Write a copy of a file of motion weights with the text of another noise schedule, or without one."""
    metadata = {key: value for key, value in read_metadata(motion).items() if key != "noise_schedule"}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, read_tensors(motion), metadata | ({"noise_schedule": schedule} if schedule else {}))
    return path


def test_values_that_a_scheduler_does_not_say_are_those_of_diffusers():
    defaults = DDPMScheduler().config
    assert {key: defaults[key] for key in NOISE_SCHEDULE} == NOISE_SCHEDULE


def test_what_a_run_records_is_what_it_trains_with(finished_run, tiny_base):
    recorded = read_motion_info(finished_run / "motion.safetensors").noise_schedule
    assert recorded == noise_schedule(tiny_base)
    scheduler = DDPMScheduler.from_pretrained(tiny_base, subfolder="scheduler")
    assert recorded == {key: scheduler.config[key] for key in NOISE_SCHEDULE}


def test_image_model_has_the_schedule_of_its_adapter(animatediff):
    full, images, adapter = animatediff
    assert noise_schedule(images, adapter) == noise_schedule(full)
    assert schedule_changes(noise_schedule(images), noise_schedule(full)) == \
        "beta_schedule was scaled_linear, is linear"


def test_values_given_one_by_one_are_counted_in_the_message():
    betas = {"trained_betas": [0.1, 0.2]}
    assert schedule_changes(betas, {"trained_betas": None}) == \
        "trained_betas was 2 values from 0.1 on, is None"
    assert schedule_changes(betas, betas) == schedule_changes({}, betas) == ""


def test_run_is_not_resumed_on_another_schedule(finished_run, other_schedule, run_main):
    code, _, err = run_main("train_model", "--resume", finished_run, "max_train_steps=3",
                            f"pretrained_model_path={other_schedule}")
    assert code == 2 and err.count("\n") == 1
    assert f"was trained on a base with another noise schedule: {CHANGES}. Put that base back" in err


def test_motion_is_not_rendered_on_another_schedule(finished_run, other_schedule, run_main, tmp_path):
    arguments = ["--base", other_schedule, "-o", tmp_path / "out", "-p", "a cat", "--steps", "1"]
    code, _, err = run_main("generate_pretrained", "-m", finished_run, *arguments)
    assert code == 2 and err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert f"and this base has another noise schedule: {CHANGES}. Use the base it was trained on." in err
    earlier = with_schedule(finished_run / "motion.safetensors", tmp_path / "motion.safetensors", None)
    assert read_motion_info(earlier).noise_schedule == {}
    assert run_main("generate_pretrained", "-m", earlier, *arguments)[0] == 0   # an earlier version wrote it


def test_motions_of_two_schedules_are_not_combined(finished_run, run_main, tmp_path):
    motion = finished_run / "motion.safetensors"
    other = with_schedule(motion, tmp_path / "other.safetensors", '{"beta_schedule": "linear"}')
    earlier = with_schedule(motion, tmp_path / "earlier.safetensors", None)
    arguments = ["-o", tmp_path / "out", "-p", "a cat", "--steps", "1"]
    code, _, err = run_main("generate_pretrained", "-m", motion, "-m", other, *arguments)
    assert code == 2 and err.count("\n") == 1
    assert "different noise schedules: beta_schedule was scaled_linear, is linear. Combine motions" in err
    assert run_main("generate_pretrained", "-m", motion, "-m", earlier, *arguments)[0] == 0


def test_fingerprint_in_the_files_is_that_of_the_loaded_network(tiny_base, other_base, animatediff):
    for folder, other in ((tiny_base, other_base), (animatediff[0], tiny_base)):
        loaded = load_base(str(folder)).fingerprint
        assert not has_other_unet(loaded, folder, None) and has_other_unet(loaded, other, None)
    full, images, adapter = animatediff
    assert load_base(str(images), adapter=str(adapter)).fingerprint == loaded
    assert not has_other_unet("unknown", images, adapter)   # assembled from two folders: only loading tells


def test_files_whose_names_are_not_those_of_the_network_do_not_tell(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    loaded = load_base(str(base)).fingerprint
    save_file(load_file(path) | {"something.else": torch.zeros(2)}, path)   # which diffusers leaves out
    assert load_base(str(base)).fingerprint == loaded and not has_other_unet(loaded, base, None)


@pytest.mark.parametrize("script, arguments, words", [
    ("generate_pretrained", ["-m", "{run}", "--base", "{other}", "-o", "{out}", "-p", "a cat"],
     "and this base has other weights"),
    ("train_model", ["--resume", "{run}", "max_train_steps=3", "pretrained_model_path={other}"],
     "was trained on another base than {other} is now")])
def test_other_weights_are_found_before_they_are_loaded(finished_run, other_base, run_main, tmp_path,
                                                        monkeypatch, script, arguments, words):
    monkeypatch.setattr("models.base._load_pipeline", lambda *_: pytest.fail("loads the base"))
    given = {"run": finished_run, "out": tmp_path / "out", "other": same_schedule(other_base, tmp_path)}
    code, _, err = run_main(script, *(part.format(**given) for part in arguments))
    assert code == 2 and err.count("\n") == 1 and words.format(**given) in err


def same_schedule(other_base: Path, folder: Path) -> Path:
    """Return a copy of `other_base` that predicts noise, as the base of the run does."""
    copied = shutil.copytree(other_base, folder / "other")
    path = copied / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    return copied
