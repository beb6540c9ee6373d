"""Configs of the published program and of its ancestor start training unchanged."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT, draw_frames
from training.config import KEYS
from training.config_loading import SECTIONS, load_config, parse_config
from training.published_keys import ALIASES, UNSUPPORTED, WITHOUT_EFFECT
from utils.errors import UserError

CONFIGS = ROOT / "tests" / "published_configs"
LISTED = [line for line in (Path(__file__).parent / "published_keys.txt").read_text().splitlines()
          if not line.startswith("#")]
# nothing is rendered or saved in between: whether training starts is asked
SMALL = ("train_data.width=64", "train_data.height=64", "train_data.n_sample_frames=4", "train_data.fps=8",
         "max_train_steps=1", "checkpointing_steps=null", "validation_steps=null", "prior_lambda=0.5")


@pytest.fixture
def here(tmp_path, clip_folders, monkeypatch) -> Path:
    """The current folder, with the files that the configs name."""
    monkeypatch.chdir(tmp_path)
    for folder in clip_folders:
        shutil.copytree(folder, tmp_path / "clips" / folder.name)
    (tmp_path / "prompts.txt").write_text("64,a cat doing the V* spin\n")
    (tmp_path / "pictures").mkdir()
    for index in range(2):
        Image.fromarray(draw_frames(1, 64, 64, index)[0]).save(tmp_path / "pictures" / f"{index}.png")
    parts = [{"frame_index": 0, "prompt": "a robot doing the sks spin"},
             {"frame_index": 12, "prompt": "a robot that ends the sks spin"}]
    clips = [{"video_path": "spin_3.mp4", "num_frames": 30, "data": parts}]
    (tmp_path / "clips.json").write_text(json.dumps({"name": "spins", "data": clips}))
    return tmp_path


def dotted(content: dict, prefix: str = "") -> set[str]:
    nested = [dotted(content[name], f"{name}.") for name in SECTIONS if name in content]
    return {prefix + name for name in content}.union(*nested)


@pytest.mark.parametrize("key", LISTED)
def test_every_listed_key_is_known(key):
    assert key in {*KEYS, *SECTIONS, *WITHOUT_EFFECT, *UNSUPPORTED, *ALIASES}


def test_no_other_keys_are_taken_for_published_ones():
    assert {*WITHOUT_EFFECT, *UNSUPPORTED, *ALIASES} <= set(LISTED)
    assert not {*WITHOUT_EFFECT, *UNSUPPORTED, *ALIASES} & {*KEYS}


def test_one_config_has_every_listed_key():
    assert dotted(yaml.safe_load((CONFIGS / "every_key.yaml").read_text())) == set(LISTED)


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_what_is_not_supported_is_refused_if_it_is_on_and_named_if_it_is_off(key):
    text = "train_data: {path: clips}\n"
    with pytest.raises(UserError, match=f"c.yaml: {key} is True. .* Set it to false"):
        parse_config(f"{text}{key}: true", "c.yaml")
    assert parse_config(f"{text}{key}: false", "c.yaml")[1] == [f"without effect here: {key}"]


def test_keys_without_effect_are_one_line(here):
    config, notes = load_config(CONFIGS / "single_video.yaml")
    (line,) = notes
    assert line.startswith("without effect here: train_text_encoder, train_data.sample_start_idx, ")
    # those of other types of data sets too
    assert {"train_data.json_path", "train_data.image_dir", "use_unet_lora"} <= set(
        line.partition(": ")[2].split(", "))
    assert (config.train_data.json_path, config.train_data.image_dir) == (None, None)


def test_sampling_counts_outside_its_section_too():
    config, notes = parse_config("sampling: uniform\ntrain_data: {path: clips}", "c.yaml")
    assert config.train_data.sampling == "uniform" and notes == []


@pytest.mark.parametrize("name, exemplars", [("published", 3), ("single_video", 1), ("every_key", 12)])
def test_published_config_starts_training(name, exemplars, here, tiny_base, run_main):
    shutil.copytree(tiny_base, here / "base")
    code, out, err = run_main("train_model", "--config", CONFIGS / f"{name}.yaml", *SMALL)
    assert code == 0, err
    assert f"{exemplars} exemplar clip" in out and "learned: " in out
    assert out.count("without effect here: ") == 1
    (line,) = [json.loads(line) for line in next((here / "results").glob("*/log.jsonl")).open()]
    assert line["step"] == 1


@pytest.mark.parametrize("name", ["published", "single_video", "every_key"])
def test_published_config_passes_the_dry_run_on_the_bundled_base(name, here, run_main):
    code, out, err = run_main("train_model", "--config", CONFIGS / f"{name}.yaml", *SMALL,
                              f"pretrained_model_path={ROOT / 'models' / 'puppet-theatre'}", "--dry-run")
    assert code == 0 and "memory" in out, err
