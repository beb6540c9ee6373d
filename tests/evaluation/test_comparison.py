"""evaluation/comparison.py and --against: two folders of videos, pair by pair."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluation.motion_words import MotionName
from evaluation.shown_videos import find_partners, find_videos
from tests.conftest import ROOT, draw_frames, write_clip
from tests.recognizers import make_clip, make_recognizer
from utils.errors import UserError
from utils.video import write_video

EXEMPLARS = ROOT / "data" / "puppets" / "exemplars"
NAMES = ("a_cat_doing_the_sks_dance_seed1", "a_cat_doing_the_sks_dance_seed2",
         "a_robot_doing_the_sks_dance_seed1", "a_man_waving_seed1")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("recognizers")
    return ["--recognizer", make_recognizer(folder / "motion"), "--clip", make_clip(folder / "clip")]


@pytest.fixture
def evaluate(models, run_main):
    """Return a function that evaluates a folder: (exit code, stdout, stderr)."""
    def run(folder: Path, *arguments: object) -> tuple[int, str, str]:
        return run_main("evaluate_motion", "-v", folder, "--exemplars", EXEMPLARS, "--motion", "dance",
                        *models, *arguments)
    return run


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Two folders of the same prompts and seeds, other pictures, and one or two videos that are alone."""
    for name, first in (("ours", 0), ("theirs", 10)):
        for index, video in enumerate(NAMES):
            write_clip(tmp_path / name / f"{video}.mp4", num_frames=6, seed=first + index)
    write_clip(tmp_path / "ours" / "a_cat_doing_the_sks_dance_seed7.mp4", num_frames=6)
    for seed in (8, 9):
        write_clip(tmp_path / "theirs" / f"a_cat_doing_the_sks_dance_seed{seed}.mp4", num_frames=6)
    return tmp_path / "ours", tmp_path / "theirs"


def scores_of(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())


def test_differences_are_those_of_the_pairs(evaluate, folders):
    ours, theirs = folders
    assert evaluate(theirs)[0] == 0
    code, out, err = evaluate(ours, "--against", theirs)
    assert code == 0, err
    document = scores_of(ours)
    (compared,) = document["against"]["differences"]
    assert document["against"]["videos"] == str(theirs)
    assert (compared["num_pairs"], compared["num_alone"], compared["num_others_alone"]) == (4, 1, 2)
    one, other = ({video["file"]: video["scores"] for video in found["videos"]}
                  for found in (document, scores_of(theirs)))
    for key, names in (("motion_probability", NAMES[:3]), ("text_alignment", NAMES)):
        wanted = [one[f"{name}.mp4"][key] - other[f"{name}.mp4"][key] for name in names]
        assert compared["measures"][key]["mean"] == pytest.approx(np.mean(wanted), abs=1e-5)
        assert compared["measures"][key]["num"] == len(wanted)
    assert compared["measures"]["motion_probability"]["num_prompts"] == 2
    assert compared["measures"]["diversity"]["num"] == 1         # of the prompt with two paired seeds
    assert "difference (95 %), pairs/prompts" in out
    assert f"{ours} less {theirs}: 4 pairs of the same prompt and seed. 1 video of {ours} has no partner. " \
           f"2 videos of {theirs} have no partner." in out


def test_without_another_folder_nothing_is_compared(evaluate, folders):
    code, out, _ = evaluate(folders[0])
    assert code == 0 and scores_of(folders[0])["against"] is None and "difference" not in out


def test_videos_that_are_the_same_do_not_differ(evaluate, folders, tmp_path):
    ours = folders[0]
    evaluate(ours)
    before = scores_of(ours)["groups"]
    code, out, err = evaluate(ours, "--against", shutil.copytree(ours, tmp_path / "copy"))
    assert code == 0 and "no partner" not in out, err
    document = scores_of(ours)
    assert document["groups"] == before      # the other folder changes no score
    measures = document["against"]["differences"][0]["measures"]
    assert {found["mean"] for found in measures.values() if found["num"]} == {0}
    assert measures["motion_top1"]["low"] < 0 < measures["motion_top1"]["high"]   # few pairs are no proof


def test_steps_of_a_run_are_compared_with_its_base(evaluate, tmp_path):
    for step in (0, 100, 200):
        for index, name in enumerate((NAMES[0], NAMES[3])):
            path = tmp_path / "run" / "samples" / f"step_{step:05d}" / f"{name}.mp4"
            write_clip(path, num_frames=6, seed=step + index)
    code, out, err = evaluate(tmp_path / "run", "--against", tmp_path / "run" / "samples" / "step_00000")
    assert code == 0, err
    compared = scores_of(tmp_path / "run")["against"]["differences"]
    assert [(each["name"], each["num_pairs"]) for each in compared] == [("step 100", 2), ("step 200", 2)]
    assert "step 100: " in out


def test_other_settings_of_the_pairs_are_said(evaluate, tmp_path):
    for name, guidance, fps in (("ours", 2.0, 8), ("theirs", 9.0, 12)):
        write_video(tmp_path / name / f"{NAMES[0]}.mp4", draw_frames(6, 64, 64), fps,
                    {"motion": "results/a", "guidance_scale": guidance})
    code, out, err = evaluate(tmp_path / "ours", "--against", tmp_path / "theirs")
    assert code == 0, err
    assert "differ in: fps 8.0 in 1, 12.0 in 1; guidance_scale 2.0 in 1, 9.0 in 1." in out


def test_partner_made_in_another_way_than_the_reference_has_none(evaluate, folders, tmp_path):
    """Its motion is compared all the same."""
    ours, theirs = folders
    base = shutil.copytree(ours, tmp_path / "base")
    for folder, guidance in ((ours, 2.0), (base, 2.0), (theirs, 9.0)):
        write_video(folder / f"{NAMES[3]}.mp4", draw_frames(6, 64, 64), 8, {"guidance_scale": guidance})
    code, out, err = evaluate(ours, "--reference-videos", base, "--against", theirs)
    assert code == 0 and "note: " in out and "was rendered in another way than" in out, err
    measures = scores_of(ours)["against"]["differences"][0]["measures"]
    assert measures["kept_change"]["num"] == 0 and measures["named_probability"]["num"] == 1


@pytest.mark.parametrize("name, words", [
    ("ours", "--against: {tmp}/ours has no other video of a prompt and seed of {tmp}/ours. Render the same"),
    ("none", "--against: {tmp}/none has no other video of a prompt and seed of {tmp}/ours."),
    ("nowhere", "--against: {tmp}/nowhere does not exist"),
    ("both", "have the same prompt and seed, so both")])
def test_folder_that_cannot_be_compared_is_refused(evaluate, folders, tmp_path, name, words):
    write_clip(tmp_path / "none" / "a_dog_seed1.mp4")
    for part in "ab":
        write_clip(tmp_path / "both" / part / f"{NAMES[0]}.mp4")
    code, _, err = evaluate(folders[0], "--against", tmp_path / name)
    assert code == 2 and words.format(tmp=tmp_path) in err and len(err.splitlines()) == 1, err


def test_prompt_and_seed_twice_in_one_folder_are_refused(tmp_path):
    write_clip(tmp_path / "a_cat_seed1.mp4")
    write_clip(tmp_path / "b_seed1.mp4")
    (tmp_path / "text.json").write_text('{"b_seed1.mp4": "a cat"}')
    videos = find_videos(tmp_path, MotionName("dance"))
    with pytest.raises(UserError, match="have the same prompt and seed"):
        find_partners(videos, [])
