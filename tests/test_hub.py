"""A motion goes to the hub at the end of its training, and comes back by its name there."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import imageio.v3 as imageio
import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from models.base import load_base
from models.motion_weights import read_motion_info
from tests.conftest import run_script_here
from tests.hub_server import TOKEN, Hub
from tests.rendering.test_several_motions import merged, write_lora
from training.config_loading import load_config
from training.model_card import model_card
from utils.video import video_metadata


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    hub = Hub()
    with pytest.MonkeyPatch.context() as patch:
        hub.connect(patch, tmp_path_factory.mktemp("home"))
        yield hub
    hub.server.shutdown()


@pytest.fixture
def script(hub, run_main):
    """Return a function that runs a command against the hub: (exit code, stdout, stderr)."""
    def run(*arguments: object) -> tuple[int, str, str]:
        code, out, err = run_main(*arguments)
        assert TOKEN not in out + err
        return code, out, err

    return run


@pytest.fixture(scope="module")
def pushed(hub, save_small_config, tmp_path_factory) -> Path:
    """The folder of a run of two steps that went to jo/spin at its end."""
    folder = tmp_path_factory.mktemp("pushed")
    config = save_small_config(folder, "max_train_steps=2", "validation_steps=2", "push_to_hub=jo/spin",
                               "validation_data.before_training=false")
    assert run_script_here("train_model", "--config", config) == 0
    return next(folder.glob("results/spin-*"))


def test_weights_config_card_and_samples_arrive(pushed, hub, tmp_path):
    files = hub.repositories["jo/spin"]
    assert set(files) == {"motion.safetensors", "config.yaml", "README.md", "samples.gif"}
    assert files["motion.safetensors"] == (pushed / "motion.safetensors").read_bytes()
    (tmp_path / "config.yaml").write_bytes(files["config.yaml"])
    assert load_config(tmp_path / "config.yaml") == load_config(pushed / "config.yaml")
    (tmp_path / "samples.gif").write_bytes(files["samples.gif"])
    assert imageio.imread(tmp_path / "samples.gif").shape == (4, 64, 64, 3)   # one video


def test_no_token_is_written_anywhere(pushed, hub):
    written = [path.read_bytes() for path in pushed.parent.parent.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not any(TOKEN.encode() in content for content in (*written, *hub.repositories["jo/spin"].values()))


def test_card_says_how_it_is_used_and_its_lines_for_diffusers_work(pushed, hub):
    card = hub.repositories["jo/spin"]["README.md"].decode()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "text-to-video"
    assert "base_model" not in yaml.safe_load(front)   # a folder
    assert "-m jo/spin -o outputs -p 'a cat doing the V* spin'" in text
    assert "| 1 | a cat doing the sks spin | 64 |" in text and "| max_train_steps | 2 |" in text
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    program = program.replace("frames = ", "pipe.set_progress_bar_config(disable=True)\nframes = ") + (
        f"import torch\ntuned = load_file({str(pushed / 'motion.safetensors')!r})\n"
        "state = pipe.unet.state_dict()\n"
        "assert all(torch.equal(state[name], tensor.float()) for name, tensor in tuned.items())\n"
        "print(len(tuned), frames.shape)")
    done = subprocess.run([sys.executable, "-c", program], cwd=pushed, capture_output=True, text=True,
                          env={**os.environ, **hub.environment(pushed.parent / "diffusers")})
    num_tuned = len(load_file(pushed / "motion.safetensors"))
    assert done.stdout.strip() == f"{num_tuned} (4, 64, 64, 3)", done.stderr


def test_motion_on_the_hub_renders_as_the_one_here(pushed, script, hub, tmp_path):
    arguments = ["-p", "a cat", "--steps", "1", "-o"]
    before = len(hub.calls)
    code, _, err = script("generate_pretrained", "-m", "jo/spin:0.5", *arguments, tmp_path)
    assert code == 0, err
    assert {call.split("/resolve/main/")[1] for call in hub.calls[before:]} == {"motion.safetensors"}
    made = video_metadata(tmp_path / "a_cat_seed0.mp4")
    assert (made["motion"], made["strength"]) == ("jo/spin", 0.5)
    code, out, _ = script("generate_pretrained", "-m", f"{pushed}:0.5", *arguments, tmp_path)
    assert code == 0 and "1 of 1 videos are there already" in out


def test_upload_that_fails_leaves_the_result_and_says_the_command(hub, script, save_small_config, tmp_path):
    config = save_small_config(tmp_path, "max_train_steps=1", "push_to_hub=jo/later")
    hub.refused = {"/commit/": 403}
    try:
        code, out, err = script("train_model", "--config", config)
    finally:
        hub.refused = {}
    run = next(tmp_path.glob("results/spin-*"))
    assert code == 2 and "learned: " in out and (run / "motion.safetensors").is_file()
    problem, later = [line for line in err.splitlines() if "jo/later" in line]
    assert "jo/later: your login to the hub may not do this" in problem and "Upload it later with: " in later
    command = later.partition("Upload it later with: ")[2].split()
    code, out, err = script("generate_pretrained", *command[command.index("-m"):])
    assert code == 0 and "use it with -m jo/later" in out, err
    assert set(hub.repositories["jo/later"]) == {"motion.safetensors", "config.yaml", "README.md"}


def test_card_that_is_there_is_kept_because_its_owner_may_have_added_to_it(pushed, hub, script):
    hub.repositories["jo/again"] = {"README.md": b"---\nlicense: mit\n---\nMine"}
    code, out, err = script("generate_pretrained", "-m", pushed, "--push-to-hub", "jo/again")
    assert code == 0 and "README.md of jo/again is kept as it is" in out, err
    assert hub.repositories["jo/again"]["README.md"].endswith(b"Mine")
    assert "motion.safetensors" in hub.repositories["jo/again"]


def test_login_is_checked_before_training(script, save_small_config, tmp_path):
    config = save_small_config(tmp_path, "push_to_hub=sam/dance", "train_data.n_sample_frames=900")
    code, _, err = script("train_model", "--config", config, "--dry-run")
    assert code == 2 and not list(tmp_path.glob("results/spin-*"))
    lines = err.splitlines()
    assert "sam/dance: you are logged in to the hub as jo, and cannot write" in lines[0]
    assert "training needs 900" in lines[1]


def test_name_that_is_nowhere_and_no_network_are_one_line(script, tmp_path, monkeypatch):
    arguments = ["-m", "jo/nothing", "-p", "a cat", "-o", tmp_path / "out"]
    code, _, err = script("generate_pretrained", *arguments)
    assert code == 2 and "jo/nothing: there is no such model on the hub" in err and len(err.splitlines()) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = script("generate_pretrained", *arguments)
    assert code == 2 and "jo/nothing: is not on this machine" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments, words", [
    (["-m", "{run}", "--push-to-hub", "dance"], "'dance' has not the form USER/NAME"),
    (["-m", "{run}:0.5", "--push-to-hub", "jo/dance"], "uploads one motion as it was learned"),
    (["-m", "{run}", "-m", "{run}", "--push-to-hub", "jo/dance"], "is named twice"),
    (["-m", "{base}", "--push-to-hub", "jo/dance"], "uploads one motion as it was learned"),
    (["-m", "{run}", "--push-to-hub", "jo/dance"], "while HF_HUB_OFFLINE is set"),
])
def test_wrong_uploads_are_one_line(finished_run, tiny_base, run_main, monkeypatch, arguments, words):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    arguments = [part.format(run=finished_run, base=tiny_base) for part in arguments]
    code, _, err = run_main("generate_pretrained", *arguments)
    assert code == 2 and words in err and len(err.splitlines()) == 1


def test_card_of_a_base_on_the_hub_names_it_and_shows_scores(finished_run):
    info = replace(read_motion_info(finished_run / "motion.safetensors"), base="cerspense/zeroscope_v2_576w")
    config, _ = load_config(finished_run / "config.yaml")
    scores = {"motion_probability": {"mean": 0.8125, "low": 0.7, "high": 0.9, "num": 12},
              "copies": {"mean": None, "low": None, "high": None, "num": 0}}
    card = model_card("jo/dance", info, config, [], scores)
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == ["cerspense/zeroscope_v2_576w"]
    assert "| motion_probability | 0.812 (0.7 to 0.9) | 12 |" in card and "copies" not in card
    assert "a person doing the V* motion" in card and "## Samples" not in card


def test_card_of_a_base_named_by_its_short_name_says_the_long_one(finished_run):
    info = replace(read_motion_info(finished_run / "motion.safetensors"), base="zs")
    card = model_card("jo/dance", info, load_config(finished_run / "config.yaml")[0], [], {})
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == ["cerspense/zeroscope_v2_576w"]
    assert "from_pretrained('cerspense/zeroscope_v2_576w')" in card and "is a folder" not in card


def test_lines_for_diffusers_load_the_motion_of_an_image_model(finished_run, animatediff, monkeypatch,
                                                               tmp_path):
    _, images, adapter = animatediff
    base = load_base(str(images), adapter=str(adapter))
    names = [name for name, _ in base.unet.named_parameters() if "motion_modules" in name]
    save_file({name: torch.full_like(base.unet.state_dict()[name], 0.01) for name in names},
              tmp_path / "motion.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: tmp_path / file)
    info = replace(read_motion_info(finished_run / "motion.safetensors"), base=str(images))
    config, _ = load_config(finished_run / "config.yaml", [f"motion_adapter_path={adapter}"])
    card = model_card("jo/dance", info, config, [], {})
    found = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], found)
    assert len(found["frames"]) == 4 and found["pipe"].scheduler.config.beta_schedule == "linear"
    state = found["pipe"].unet.state_dict()
    assert all((tensor == 0.01).all() == (name in names) for name, tensor in state.items())


def test_lines_for_diffusers_load_a_lora(hub, finished_run, tiny_base, tmp_path):
    path = write_lora(tmp_path / "motion.safetensors", tiny_base, "sks", 5)
    hub.repositories["jo/lora"] = {"motion.safetensors": path.read_bytes()}
    config, _ = load_config(finished_run / "config.yaml", ["lora_rank=2"])
    card = model_card("jo/lora", read_motion_info(path), config, [], {})
    assert "lora" in yaml.safe_load(card.split("---\n")[1])["tags"] and "(LoRA) of rank 2." in card
    found = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], found)
    found["pipe"].fuse_lora()
    ours = merged(tiny_base, (path, 1.0))
    theirs = {name.replace(".base_layer", ""): tensor
              for name, tensor in found["pipe"].unet.state_dict().items()}
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


def test_motion_here_goes_before_a_name_on_the_hub(finished_run, run_main, tmp_path, monkeypatch):
    shutil.copytree(finished_run, tmp_path / "jo" / "spin")
    monkeypatch.chdir(tmp_path)
    code, _, err = run_main("generate_pretrained", "-m", "jo/spin", "-o", "out", "-p", "a cat",
                            "--steps", "1")
    assert code == 0, err
    assert video_metadata(tmp_path / "out" / "a_cat_seed0.mp4")["motion"] == "jo/spin/motion.safetensors"


def test_ctrl_c_during_an_upload_says_the_command_that_uploads_later(hub, script, finished_run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.publishing.upload", interrupted)
    code, _, err = script("generate_pretrained", "-m", finished_run, "--push-to-hub", "jo/stopped")
    assert code == 130 and "jo/stopped" not in hub.repositories
    later = err.partition("Upload it later with: ")[2].splitlines()[0].split()
    assert later[-4:] == ["-m", str(finished_run), "--push-to-hub", "jo/stopped"]


def test_step_of_an_unfinished_run_is_said(script, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / finished_run.name,
                          ignore=shutil.ignore_patterns("motion.safetensors", "checkpoint-2"))
    shutil.copy(finished_run / "checkpoint-1" / "motion.safetensors", run / "checkpoint-1")
    code, out, err = script("generate_pretrained", "-m", run, "--push-to-hub", "jo/half")
    assert code == 0, err
    assert f"uploading step 1 of 2: {run / 'checkpoint-1' / 'motion.safetensors'}\n" in out


def test_lora_made_of_whole_weights_does_not_take_their_samples(script, hub, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / finished_run.name)
    for place in (run / "lora.safetensors", tmp_path / "motion.safetensors"):
        code, _, err = script("generate_pretrained", "-m", run, "--export-lora", "2", place)
        assert code == 0, err
    (tmp_path / "motion.safetensors").replace(run / "motion.safetensors")   # also under the result's own name
    for number, motion in enumerate((run / "lora.safetensors", run)):
        code, _, err = script("generate_pretrained", "-m", motion, "--push-to-hub", f"jo/lora{number}")
        assert code == 0, err
        files = hub.repositories[f"jo/lora{number}"]
        assert "samples.gif" not in files
        assert b"of rank 2, made of the whole weights that were trained." in files["README.md"]
