"""train_model.py --help-config: what every key means, read from the comments of training/config.py."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from training.config import KEYS
from training.config_help import config_help, meanings, values_of, written
from utils.errors import UserError


def test_every_key_and_section_has_a_meaning():
    described = meanings()
    assert set(described) == {*KEYS, "train_data", "validation_data"}
    assert [key for key, meaning in described.items() if len(meaning) < 8] == []


def test_comments_above_and_behind_a_key_are_its_meaning():
    described = meanings()
    assert described["train_data.class_path"] == "folder of regularization clips; null: none"
    assert described["validation_data.num_frames"] == "frames of a video; null: as trained"
    assert described["trainable_modules"].startswith("what trains: the union of named groups (cross,")


def test_comment_of_the_key_before_is_not_its_meaning():
    assert "class_path" not in meanings()["train_data.width"] and "null" not in meanings()["train_data.width"]


def test_all_keys_are_listed_with_their_defaults_in_order():
    listed = [line for line in config_help().splitlines() if line and line[0] != " " and "=" in line]
    assert listed == [f"{key.name}={written(key.default)}" for key in KEYS.values()]
    assert "learning_rate=5e-06" in listed and "train_data.path=null" in listed
    assert "checkpointing_steps=[1000,2000,3000]" in listed and "train_data.use_bucketing=true" in listed


@pytest.mark.parametrize("word", ["scheduler", "SCHEDULER", "learning rate"])
def test_word_is_looked_for_in_names_and_meanings(word):
    text = config_help(word)
    assert "lr_scheduler=constant\n    how the learning rate changes" in text and "train_data.fps" not in text


def test_section_of_a_key_is_told():
    assert config_help("subsampled").startswith("train_data: the clips\n\ntrain_data.fps=24\n")


def test_values_are_told_where_the_meaning_does_not():
    assert values_of(KEYS["lr_scheduler"], "how it changes").startswith(". It can be constant, constant_with")
    assert values_of(KEYS["motion_dtype"], "fp16 or fp32") == ""
    assert values_of(KEYS["adam_beta1"], "") == " (at least zero and below 1)"


def test_word_that_nothing_has_is_said():
    with pytest.raises(UserError, match="no key and no meaning of one has 'warpdrive' in it"):
        config_help("warpdrive")


def test_command_answers_without_waiting_for_torch():
    code = "import sys, runpy; sys.argv = ['train_model.py', '--help-config', 'held']\n" \
           "try: runpy.run_path('train_model.py', run_name='__main__')\n" \
           "finally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "train_data.held_out=0" in done.stdout and done.stdout.endswith("False\n"), done.stderr


def test_help_points_to_it(run_main):
    code, out, _ = run_main("train_model", "--help")
    assert code == 0 and "--help-config" in out.splitlines()[-2] + out.splitlines()[-1]
