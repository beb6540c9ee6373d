"""A base with another noise schedule is refused: on resume, with --base, and when motions are combined."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file

from models.base import load_base
from models.motion_weights import MotionInfo, read_motion_info, save_motion
from models.same_base import (
    NOISE_SCHEDULE,
    has_other_unet,
    have_one_base,
    noise_schedule,
    schedule_changes,
)
from models.tunable import select_tunable, union
from utils.tensor_files import read_metadata, read_tensors, write_tensors

SAME_WHERE_IT_TRAINED = "In the layers that trained, this base has the same weights, up to rounding."
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


# ----------------------------------------------------------------------------- bases that are nearly the same

def in_half_precision(base: Path, folder: Path, dtype: torch.dtype) -> Path:
    copied = shutil.copytree(base, folder)
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    tensors["conv_in.bias"][0] = torch.inf   # what fp16 makes of a value above its range
    save_file(tensors, path, {"format": "pt"})
    return copied


@pytest.fixture(scope="module")
def large_value(tiny_base, tmp_path_factory) -> Path:
    """The base with a value that fp16 does not hold."""
    base = shutil.copytree(tiny_base, tmp_path_factory.mktemp("bases") / "large")
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.bias"][0] = 1e6
    save_file(tensors, path, {"format": "pt"})
    return base


def test_copy_in_fp16_has_the_same_rounded_fingerprint_and_one_in_bf16_has_not(large_value, tmp_path):
    half = load_base(str(in_half_precision(large_value, tmp_path / "half", torch.float16)))
    other = load_base(str(in_half_precision(large_value, tmp_path / "other", torch.bfloat16)))
    base = load_base(str(large_value))
    assert half.fingerprint != base.fingerprint
    assert half.rounded_fingerprints == base.rounded_fingerprints != other.rounded_fingerprints


def to_fp16(base: Path, folder: Path) -> Path:
    copied = shutil.copytree(base, folder)
    for path in copied.glob("*/*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    return copied


def without_rounded(motion: Path, path: Path) -> Path:
    """Write a copy of a file of motion weights as an earlier version wrote it."""
    metadata = {key: value for key, value in read_metadata(motion).items() if key != "rounded_fingerprints"}
    write_tensors(path, read_tensors(motion), metadata)
    return path


def test_motion_is_rendered_on_a_copy_of_its_base_in_fp16(finished_run, tiny_base, run_main, tmp_path):
    half, motion = to_fp16(tiny_base, tmp_path / "half"), finished_run / "motion.safetensors"
    arguments = ["--base", half, "-o", tmp_path / "out", "-p", "a cat", "--steps", "1"]
    code, out, err = run_main("generate_pretrained", "-m", motion, *arguments)
    assert code == 0 and SAME_WHERE_IT_TRAINED in out, err
    earlier = without_rounded(motion, tmp_path / "motion.safetensors")
    code, _, err = run_main("generate_pretrained", "-m", earlier, *arguments)
    assert code == 2 and "and this base has other weights" in err and err.count("\n") == 1
    arguments = ["-o", tmp_path / "own", *arguments[4:]]
    assert run_main("generate_pretrained", "-m", earlier, *arguments)[0] == 0


def test_run_is_not_resumed_on_a_copy_of_its_base_in_fp16(finished_run, tiny_base, run_main, tmp_path):
    code, _, err = run_main("train_model", "--resume", finished_run, "max_train_steps=3",
                            f"pretrained_model_path={to_fp16(tiny_base, tmp_path / 'half')}")
    assert code == 2 and "was trained on another base than" in err


@pytest.fixture(scope="module")
def other_images(animatediff, tmp_path_factory) -> tuple[Path, Path, Path]:
    """Another image model with the same adapter: the pipeline of both, the model and the adapter."""
    folder = tmp_path_factory.mktemp("bases")
    full, images = (shutil.copytree(base, folder / base.name) for base in animatediff[:2])
    for base in (full, images):
        path = base / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        for name in tensors:
            if "motion_modules" not in name:
                tensors[name] = tensors[name] * 1.01
        save_file(tensors, path, {"format": "pt"})
    return full, images, animatediff[2]


def write_motion(path: Path, base, groups: list[str]) -> Path:
    names = union(select_tunable(dict(base.unet.named_parameters()), groups))
    tensors = {name: base.unet.get_parameter(name) * 1.1 for name in names}
    info = MotionInfo(base.name, base.fingerprint, groups, "sks", 1, 8.0, "train_data: {path: clips}\n", {},
                      rounded_fingerprints=base.rounded_fingerprints)
    save_motion(path, tensors, info, "fp32")
    return path


@pytest.mark.parametrize("is_pipeline", [True, False])
def test_motion_of_motion_modules_alone_is_rendered_on_another_image_model(
        animatediff, other_images, run_main, tmp_path, is_pipeline):
    base = load_base(str(animatediff[1]), adapter=str(animatediff[2]))
    now = ["--base", other_images[0]] if is_pipeline else [
        "--base", other_images[1], "--adapter", other_images[2]]
    arguments = [*now, "-o", tmp_path / "out", "-p", "a cat", "--steps", "1", "-r", "64", "-d", "2"]
    temporal = write_motion(tmp_path / "temporal.safetensors", base, ["temporal"])
    code, out, err = run_main("generate_pretrained", "-m", temporal, *arguments)
    assert code == 0 and SAME_WHERE_IT_TRAINED in out, err
    both = write_motion(tmp_path / "both.safetensors", base, ["cross", "temporal"])
    code, _, err = run_main("generate_pretrained", "-m", both, *arguments)
    assert code == 2 and "and this base has other weights" in err and err.count("\n") == 1


def test_motion_of_motion_modules_is_refused_with_another_adapter(animatediff, run_main, tmp_path):
    base = load_base(str(animatediff[1]), adapter=str(animatediff[2]))
    adapter = shutil.copytree(animatediff[2], tmp_path / "adapter")
    path = adapter / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    motion = write_motion(tmp_path / "motion.safetensors", base, ["temporal"])
    code, _, err = run_main("generate_pretrained", "-m", motion, "--base", animatediff[1],
                            "--adapter", adapter, "-o", tmp_path / "out", "-p", "a cat", "--steps", "1",
                            "-r", "64", "-d", "2")
    assert code == 2 and "and this base has other weights" in err


def test_motions_of_a_base_and_of_its_copy_in_fp16_are_combined():
    def info(exact: str, **rounded: str) -> MotionInfo:
        return MotionInfo("b", exact, ["all"], "sks", 1, 8.0, "", {}, rounded_fingerprints=rounded)

    assert have_one_base(info("a"), info("a")) and have_one_base(info("a", whole="x"), info("b", whole="x"))
    assert not have_one_base(info("a"), info("b")) and not have_one_base(info("a", whole="x"), info("b"))
