"""Two motions learned in one run: a folder of exemplars each, V* in the captions of one, V2* of the other."""

import shutil
from pathlib import Path

import pytest

from models.motion_weights import read_motion_info
from tests.conftest import run_script_here, write_clip
from training.checkpoint import changed_clips, describe_clips
from training.config_loading import load_config
from training.plan import make_plan
from training.run_page import read_page
from utils.video import video_metadata


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Two folders whose clips have the same names."""
    folder = tmp_path_factory.mktemp("two")
    for number in (1, 2):
        write_clip(folder / "dance" / f"{number}.mp4", seed=number, caption="a man doing the V* dance")
        write_clip(folder / "jump" / f"{number}.mp4", seed=9 + number, caption="a cat doing the V2* jump")
    return folder / "dance", folder / "jump"


@pytest.fixture(scope="module")
def config(folders, tmp_path_factory, save_small_config) -> Path:
    return save_small_config(
        tmp_path_factory.mktemp("config"), f"train_data.path=[{folders[0]},{folders[1]}]",
        "max_train_steps=2", "train_data.class_path=null", "validation_steps=2",
        "validation_data.before_training=false",
        "validation_data.prompt=a dog doing the V2* jump after the V* dance")


@pytest.fixture(scope="module")
def run(config) -> Path:
    assert run_script_here("train_model", "--config", config) == 0
    return next(config.parent.glob("results/spin-*"))


def test_report_tells_the_motions_and_their_clips_apart(config, run_main):
    code, out, err = run_main("train_model", "--config", config, "--dry-run")
    assert code == 0, err
    assert "motions: V* (sks) in 2 exemplars, V2* (zwx) in 2 exemplars\n" in out
    assert all(f"\n  {name}/{number}.mp4: " in out for name in ("dance", "jump") for number in (1, 2))
    assert 'the zwx jump"' in out and "does not name the motion" not in out and "no sample prompt" not in out


def test_clips_of_the_same_name_are_both_checked_when_a_run_goes_on(config):
    described = describe_clips(make_plan(load_config(config)[0]))
    assert list(described) == ["exemplar/dance/1.mp4", "exemplar/dance/2.mp4",
                               "exemplar/jump/1.mp4", "exemplar/jump/2.mp4"]
    assert len({digest for digest, _ in described.values()}) == 4


def test_folder_whose_motion_no_caption_names_is_noted(config, folders, run_main):
    code, out, _ = run_main("train_model", "--config", config, "--dry-run",
                            "placeholder_token=[sks, zwx, ohwx]")
    assert code == 0
    assert "V3* (ohwx) in 0 exemplars\nnote: no caption names V3*, so nothing is learned by that name" in out


def test_caption_of_a_motion_without_a_word_is_an_error(config, folders, run_main):
    code, _, err = run_main("train_model", "--config", config, "--dry-run", f"train_data.path={folders[1]}",
                            "validation_data.prompt=null")
    assert code == 2 and len(err.splitlines()) == 1 and "asks for V2*, and the motions are V* (sks)" in err


def test_both_motions_are_learned_and_asked_for(run, run_main, tmp_path):
    assert read_motion_info(run / "motion.safetensors").placeholder_token == "sks,zwx"
    sample = run / "samples" / "step_00002" / "a_dog_doing_the_zwx_jump_after_the_sks_dance_seed64.mp4"
    assert video_metadata(sample)["placeholder_token"] == "sks,zwx"
    code, _, err = run_main("generate_pretrained", "-m", run, "-o", tmp_path, "--steps", "1",
                            "-p", "a man doing the V2* jump")
    assert code == 0 and (tmp_path / "a_man_doing_the_zwx_jump_seed0.mp4").exists(), err


def test_page_of_the_run_shows_both_identifiers(run):
    page = read_page(run)
    assert page["samples"][0]["videos"][0]["prompt"] == "a dog doing the V2* jump after the V* dance"
    assert {caption for part in page["clips"] for clip in part["clips"] for caption in clip["captions"]} == {
        "a man doing the V* dance", "a cat doing the V2* jump"}


def test_run_goes_on_when_the_folders_of_clips_are_renamed(config, run, run_main, folders, tmp_path):
    goes_on, dances, jumps = (shutil.copytree(folder, tmp_path / name)
                              for folder, name in ((run, run.name), (folders[0], "a"), (folders[1], "b")))
    renamed = f"train_data.path=[{dances},{jumps}]"
    code, out, err = run_main("train_model", "--resume", goes_on, "max_train_steps=3", renamed)
    assert code == 0 and "after step 2" in out, err
    write_clip(jumps / "2.mp4", seed=30)
    code, _, err = run_main("train_model", "--resume", goes_on, "max_train_steps=4", renamed)
    assert code == 2 and "other clips or captions: exemplar/b/2.mp4, exemplar/jump/2.mp4. Put" in err


def test_clips_are_the_same_by_content_and_counted():
    one, other = ["digest", ["a man"]], ["digest", ["a cat"]]
    assert changed_clips({"exemplar/a/1.mp4": one, "exemplar/b/1.mp4": other},
                         {"exemplar/c/1.mp4": other, "exemplar/d/1.mp4": one}) == []
    assert changed_clips({"exemplar/a/1.mp4": one, "exemplar/b/1.mp4": one}, {"exemplar/1.mp4": one}) != []
    assert changed_clips({"exemplar/1.mp4": one}, {"regularization/1.mp4": one}) == [
        "exemplar/1.mp4", "regularization/1.mp4"]
    assert changed_clips({"exemplar/1.mp4": one}, {"exemplar/2.mp4": one}) == ["exemplar/1.mp4",
                                                                               "exemplar/2.mp4"]
