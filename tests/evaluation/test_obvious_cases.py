"""The bundled recognizers through evaluate_motion.py: cases whose scores anyone could tell are told apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from puppets import theatre, world
from tests.conftest import ROOT
from utils.video import read_frames, write_video

EXEMPLARS = ROOT / "data" / "puppets" / "exemplars"
UNSEEN = [("robot", "snow"), ("nurse", "park"), ("alien", "desert"), ("bear", "night"), ("cat", "stage"),
          ("toddler", "kitchen"), ("firefighter", "beach"), ("robot", "night"), ("cat", "park"),
          ("bear", "snow")]


def draw(motion: str, seed: int = 20) -> np.ndarray:
    """Return clips (n f h w c) of characters that no exemplar shows."""
    scenes = [world.Scene(character, motion, place, 1) for character, place in UNSEEN]
    return theatre.draw_clips(len(scenes), seed, scenes=scenes).frames


def write_results(folder: Path, clips: list[np.ndarray], what: str = "doing the sks dance") -> Path:
    """Write clips as results whose prompts asked for unseen characters doing the motion."""
    for index, (frames, (character, place)) in enumerate(zip(clips, UNSEEN)):
        prompt = f"a {character} {what} {world.PLACE_PHRASES[place][0]}"
        write_video(folder / f"{prompt.replace(' ', '_')}_seed{index}.mp4", frames, 8, {"prompt": prompt})
    return folder


@pytest.fixture
def measures(run_main):
    """Return a function that evaluates a folder for the dance and returns its measures."""
    def measure(folder: Path, *arguments: object) -> dict:
        code, _, err = run_main("evaluate_motion", "-v", folder, "--exemplars", EXEMPLARS, "--motion",
                                "dance", *arguments)
        assert code == 0, err
        return json.loads((folder / "scores.json").read_text())["groups"][0]["measures"]
    return measure


@pytest.fixture(scope="module")
def measured_once() -> dict:
    return {}


@pytest.fixture
def real(measures, measured_once, tmp_path) -> dict:
    """The measures of drawn clips of the motion, which are computed once."""
    if not measured_once:
        measured_once |= measures(write_results(tmp_path / "real", draw("dance")))
    return measured_once


def test_real_clips_of_the_motion_score_high_and_of_others_low(measures, real, tmp_path):
    other = measures(write_results(tmp_path / "other", draw("jumping jacks")))
    assert real["motion_top1"]["mean"] >= 0.9 and real["motion_probability"]["low"] > 0.6
    assert other["motion_top1"]["mean"] == 0 and other["motion_probability"]["high"] < 0.2


def test_shuffled_frames_lose_the_motion(measures, real, tmp_path):
    lost = measures(write_results(tmp_path / "shuffled", draw("dance")[:, [0, 4, 1, 5, 2, 6, 3, 7]]))
    assert lost["motion_probability"]["mean"] < real["motion_probability"]["mean"] - 0.2
    assert lost["motion_top1"]["mean"] < real["motion_top1"]["mean"]
    assert lost["temporal_consistency"]["mean"] < real["temporal_consistency"]["mean"]


def test_exemplars_passed_off_as_results_are_copies_and_new_clips_are_not(measures, real, tmp_path):
    smaller = [read_frames(path, range(8), (48, 48)) for path in sorted(EXEMPLARS.glob("*.mp4"))]
    found = measures(write_results(tmp_path / "copies", smaller))
    assert found["copies"]["mean"] == 1 and found["copies"]["num"] == 6
    assert found["exemplar_ratio"]["mean"] < 0.2
    assert real["copies"]["mean"] == 0 and real["exemplar_ratio"]["mean"] > 0.7


def test_text_alignment_falls_where_the_prompt_is_of_another_scene(measures, real, tmp_path):
    clips = draw("dance")
    wrong = measures(write_results(tmp_path / "wrong", [*clips[1:], clips[0]]))
    assert wrong["text_alignment"]["high"] < real["text_alignment"]["low"]


def test_everyday_videos_that_turned_into_the_motion_are_not_kept(measures, tmp_path):
    base = write_results(tmp_path / "base", draw("waving"), "waving")
    kept = write_results(tmp_path / "kept", draw("waving", seed=21), "waving")
    lost = write_results(tmp_path / "lost", draw("dance"), "waving")
    for folder in (kept, lost):
        write_results(folder, draw("dance")[:1])
    kept, lost = (measures(folder, "--reference-videos", base) for folder in (kept, lost))
    assert kept["named_probability"]["mean"] > 0.8 and kept["kept_top1"]["mean"] > 0.8
    assert lost["named_probability"]["mean"] < 0.2 and lost["kept_top1"]["mean"] < 0.2
    assert lost["kept_change"]["high"] < -0.5


@pytest.mark.slow
def test_untuned_base_scores_low(measures, real, run_main, tmp_path):
    prompts = "|".join(f"a {character} doing the V* dance {world.PLACE_PHRASES[place][0]}"
                       for character, place in UNSEEN[:6])
    code, _, err = run_main("generate_pretrained", "-m", ROOT / "models" / "puppet-theatre", "-o",
                            tmp_path / "base", "-p", prompts, "--steps", "8", "--guidance-scale", "4",
                            "-d", "8", "--batch-size", "6")
    assert code == 0, err
    base = measures(tmp_path / "base")
    assert base["motion_probability"]["high"] < real["motion_probability"]["low"]


def test_clips_as_they_lie_in_a_data_folder_are_measured(measures, tmp_path):
    """Captions from text.json, V* as people write it."""
    folder = shutil.copytree(EXEMPLARS, tmp_path / "exemplars")
    found = measures(folder)
    assert found["motion_top1"]["mean"] == 1
    assert found["copies"]["mean"] == 1 and found["frozen"]["mean"] == 0
