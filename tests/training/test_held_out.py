"""Clips held out of training: which they are, that they never train, that measuring disturbs nothing."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from models.objective import even_timesteps
from tests.conftest import write_clip
from training.clips import Clip
from training.config import Config, TrainData
from training.held_out import set_apart
from training.held_out_loss import without_dropout
from training.run_folder import read_log
from utils.errors import UserError
from utils.video import VideoInfo


def clips_named(*names: str, digest: str = "") -> list:
    info, frames = VideoInfo(8, 8, 64, 64), tuple(range(8))
    return [Clip(Path(name), digest or name, ("a sks",), info, (64, 64), frames, 8, (), (), 8)
            for name in names]


def config_of(held_out: int, seed: int = 64, tokens: str = "sks") -> Config:
    return Config(seed=seed, placeholder_token=tokens, train_data=TrainData(path="clips", held_out=held_out))


def names(clips: list) -> list[str]:
    return [clip.path.name for clip in clips]


def test_as_many_of_both_roles_are_held_out_and_no_clip_is_lost():
    exemplars, others = clips_named(*"abcde"), clips_named(*"vwxyz")
    trained, kept, held = set_apart(config_of(2), exemplars, others)
    assert [len(trained), len(kept), len(held["exemplar"]), len(held["regularization"])] == [3, 3, 2, 2]
    assert sorted(names(trained + held["exemplar"])) == list("abcde")
    assert sorted(names(kept + held["regularization"])) == list("vwxyz")


def test_seed_and_names_choose_whatever_the_order():
    exemplars = clips_named(*"abcdefgh")
    held = set_apart(config_of(2), exemplars, [])[2]["exemplar"]
    assert names(set_apart(config_of(2), exemplars[::-1], [])[2]["exemplar"]) == names(held)
    choices = {tuple(names(set_apart(config_of(2, seed), exemplars, [])[2]["exemplar"])) for seed in range(9)}
    assert len(choices) > 3


def test_one_clip_more_is_no_reason_to_hold_out_others():
    """Either the new clip is among the held-out ones, or they are the same as before."""
    held = set(names(set_apart(config_of(3), clips_named(*"abcdefgh"), [])[2]["exemplar"]))
    with_more = set(names(set_apart(config_of(3), clips_named(*"abcdefghi"), [])[2]["exemplar"]))
    assert len(held & with_more) >= 2 and with_more <= held | {"i"}


def test_at_least_one_regularization_clip_stays():
    _, kept, held = set_apart(config_of(2), clips_named(*"abcde"), clips_named("x", "y"))
    assert len(kept) == len(held["regularization"]) == 1
    _, kept, held = set_apart(config_of(2), clips_named(*"abcde"), clips_named("x"))
    assert names(kept) == ["x"] and held["regularization"] == []


@pytest.mark.parametrize("held_out", [3, 4])
def test_no_exemplar_left_is_said(held_out):
    with pytest.raises(UserError, match=f"train_data.held_out is {held_out}, and of 3 exemplar files none "
                                        "would be left to train on. Hold out at most 2."):
        set_apart(config_of(held_out), clips_named(*"abc"), [])


def test_file_is_held_out_whole():
    """Repeated exemplars, and the same file among the regularization clips, do not train either."""
    repeated = clips_named(*"aabbcc")
    other = clips_named("copy of a", digest="a") + clips_named("copy of b", digest="b") \
        + clips_named("copy of c", digest="c") + clips_named("x", "y")
    trained, kept, held = set_apart(config_of(1), repeated, other)
    (gone,) = names(held["exemplar"])
    assert len(trained) == 4 and gone not in names(trained)
    assert f"copy of {gone}" not in names(kept) and held["regularization"][0].path.name in "xy"


def test_even_timesteps_stand_for_the_drawn_ones():
    assert even_timesteps(4, 1000, 0.0).tolist() == [124, 374, 624, 874]
    assert even_timesteps(4, 1000, 0.5).tolist() > even_timesteps(4, 1000, 0.0).tolist()
    assert 0 <= even_timesteps(8, 1000, -0.5).min() and even_timesteps(8, 1000, -0.5).max() < 1000


def test_dropout_is_off_while_measuring_and_on_again():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    with without_dropout(network):
        assert [layer.training for layer in network] == [True, False]
    assert [layer.training for layer in network] == [True, True]


@pytest.fixture(scope="module")
def measured_run(tmp_path_factory, save_small_config):
    """A run of two steps that holds out one clip of each role and measures it after every step."""
    from tests.conftest import run_script_here

    folder = tmp_path_factory.mktemp("held_out")
    config = save_small_config(folder, *CHANGES, "train_data.held_out=1", "held_out_steps=1")
    assert run_script_here("train_model", "--config", config) == 0
    return next(folder.glob("results/spin-*"))


CHANGES = ["temporal_dropout=0.1", "train_batch_size=2", "motion_dtype=fp32", "max_train_steps=2",
           "checkpointing_steps=1"]


def held_out_names(run) -> list[str]:
    state = json.loads((run / "checkpoint-2" / "state.json").read_text())
    return [name for name in state["clips"] if name.startswith("held-out ")]


def test_loss_of_held_out_clips_is_logged_from_step_0_on(measured_run):
    log = read_log(measured_run)
    measured = [entry for entry in log if "held_out_exemplar" in entry]
    assert [entry["step"] for entry in log] == [0, 1, 2]
    assert [entry["step"] for entry in measured] == [0, 1, 2]
    for role in ("exemplar", "regularization"):
        losses = [entry[f"held_out_{role}"] for entry in measured]
        assert len(set(losses)) == 3 and all(0.01 < loss < 3 for loss in losses)


def test_measuring_leaves_the_weights_as_they_are_without_it(measured_run, run_main, write_config,
                                                             clip_folders, tmp_path):
    """Bit for bit: a run on the same clips that measures nothing."""
    import shutil

    folders = []
    for role, folder in zip(("exemplar", "regularization"), clip_folders):
        folders.append(shutil.copytree(folder, tmp_path / role))
        (gone,) = [name for name in held_out_names(measured_run) if name.startswith(f"held-out {role}/")]
        (folders[-1] / gone.partition("/")[2]).unlink()
    code, out, err = run_main("train_model", "--config", write_config(
        *CHANGES, f"train_data.path={folders[0]}", f"train_data.class_path={folders[1]}"))
    assert code == 0, out + err
    (plain,) = (tmp_path / "results").glob("spin-*")
    for name in ("motion.safetensors", "checkpoint-1/motion.safetensors"):
        first, second = load_file(measured_run / name), load_file(plain / name)
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
    losses = [[{key: entry[key] for key in ("step", "loss", "grad_norm")} for entry in read_log(run)
               if entry["step"]] for run in (measured_run, plain)]
    assert losses[0] == losses[1]


def test_resumed_run_measures_the_same(measured_run, run_main, tmp_path):
    import shutil

    run = shutil.copytree(measured_run, tmp_path / measured_run.name)
    (run / "motion.safetensors").unlink()
    shutil.rmtree(run / "checkpoint-2")
    code, out, err = run_main("train_model", "--resume", run, "held_out_steps=2")
    assert code == 0, out + err
    first, second = ({entry["step"]: entry["held_out_exemplar"] for entry in read_log(folder)
                      if "held_out_exemplar" in entry} for folder in (measured_run, run))
    assert list(second) == [0, 1, 2] and first == second


def test_resume_with_another_number_is_refused(measured_run, run_main):
    code, _, err = run_main("train_model", "--resume", measured_run, "train_data.held_out=2",
                            "max_train_steps=9")
    assert code == 2 and "train_data.held_out was 1, is 2" in err


def test_dry_run_names_what_is_held_out(measured_run, run_main, write_config):
    code, out, _ = run_main("train_model", "--config", write_config("train_data.held_out=1"), "--dry-run")
    assert code == 0
    after = out.partition("1 exemplar clip, held out: never trained on, only measured")[2]
    assert all(name.partition("/")[2] in after for name in held_out_names(measured_run))
    assert "2 exemplar clips\n" in out and "1 regularization clip, held out" in out


def test_holding_out_too_many_is_one_line(run_main, write_config):
    code, _, err = run_main("train_model", "--config", write_config("train_data.held_out=3"), "--dry-run")
    assert code == 2 and err.count("\n") == 1 and "of 3 exemplar files none would be left to train on" in err


def test_fewer_regularization_clips_than_asked_for_are_no_error(run_main, write_config):
    code, out, _ = run_main("train_model", "--config",
                            write_config("train_data.held_out=2", "train_data.class_path=null"), "--dry-run")
    assert code == 0 and "2 exemplar clips, held out" in out and "0 regularization clips" in out


def test_loss_that_is_not_finite_is_logged_as_null(monkeypatch):
    from training import held_out_loss

    training = SimpleNamespace(unet=torch.nn.Identity(), plan=SimpleNamespace(held_out={"exemplar": [1, 2]}))
    monkeypatch.setattr(held_out_loss, "held_out_loss", lambda *_: torch.tensor(torch.inf))
    assert held_out_loss.held_out_losses(training) == {"held_out_exemplar": None}


def test_config_without_it_is_as_before():
    exemplars = clips_named("a")
    assert set_apart(replace(config_of(0)), exemplars, exemplars) == (exemplars, exemplars, {})


def test_of_several_motions_one_exemplar_of_each_is_held_out():
    dances, others = clips_named(*"abc"), clips_named(*"vwxyz")
    jumps = [replace(clip, captions=("a cat", "a cat doing the zwx jump")) for clip in clips_named(*"de")]
    trained, kept, held = set_apart(config_of(1, tokens="sks,zwx,ohwx"), dances + jumps, others)
    shown = set(names(held["exemplar"]))
    assert len(shown & set("abc")) == len(shown & set("de")) == 1
    assert [len(trained), len(kept), len(held["exemplar"]), len(held["regularization"])] == [3, 3, 2, 2]
    with pytest.raises(UserError, match="of 2 exemplar files of zwx none would be left to train on"):
        set_apart(config_of(2, tokens="sks,zwx"), dances + jumps, others)


def test_more_words_than_motions_change_no_choice():
    exemplars, others = clips_named(*"abcdefgh"), clips_named(*"vwxyz")
    assert set_apart(config_of(2, tokens="sks,zwx"), exemplars, others) == \
        set_apart(config_of(2), exemplars, others)


def test_folders_of_two_motions_hold_out_one_clip_of_each(run_main, write_config, clip_folders, tmp_path):
    write_clip(tmp_path / "jump" / "spin_1.mp4", seed=8, caption="a cat doing the V2* jump")
    write_clip(tmp_path / "jump" / "spin_2.mp4", seed=9, caption="a dog doing the V2* jump")
    code, out, err = run_main("train_model", "--dry-run", "--config", write_config(
        "train_data.held_out=1", f"train_data.path=[{clip_folders[0]},{tmp_path / 'jump'}]"))
    assert code == 0, err
    held = out.partition("2 exemplar clips, held out")[2].partition("held out")[0]
    assert held.count("the sks spin") == held.count("the zwx jump") == 1
