"""The whole way, as a user goes it: train on clips, generate, open the gallery in a real browser."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, write_clip
from tests.rendering.test_gallery_browser import texts, wait_until_playing
from training.run_folder import read_log

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# where this project is developed; elsewhere clips are drawn
REAL_CLIPS = ROOT.parent / "shared" / "real_clips"


@pytest.fixture
def clips(tmp_path) -> tuple[Path, Path]:
    """Three clips of other sizes and rates as exemplars, two of them also as regularization."""
    exemplars, regularization = tmp_path / "exemplars", tmp_path / "regularization"
    if REAL_CLIPS.is_dir():
        shutil.copytree(REAL_CLIPS, exemplars, ignore=shutil.ignore_patterns("README*"))
    else:
        write_clip(exemplars / "man-skiing.mp4", 91, 718, 718, 29.97, 1, "a man is skiing")
        write_clip(exemplars / "man-surfing.mp4", 72, 656, 656, 24, 2, "a man is surfing")
        write_clip(exemplars / "car-turn.mp4", 80, 480, 480, 10, 3, "a jeep car is moving on the road")
    regularization.mkdir()
    for path in exemplars.glob("man-*"):
        shutil.copy(path, regularization)
    return exemplars, regularization


def script(name: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, str(ROOT / name), *map(str, arguments)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_real_clips_to_videos_that_play(clips, tiny_base, tmp_path, open_page):
    out = script("train_model.py", "--config", os.devnull, f"pretrained_model_path={tiny_base}",
                 f"output_dir={tmp_path / 'results'}",
                 f"train_data.path={clips[0]}", f"train_data.class_path={clips[1]}",
                 "train_data.width=64", "train_data.height=64",
                 "train_data.n_sample_frames=8", "train_data.fps=8",
                 "max_train_steps=20", "validation_steps=20",
                 "validation_data.width=64", "validation_data.height=64",
                 "validation_data.num_frames=8", "validation_data.num_inference_steps=2",
                 "validation_data.prompt=a man is V* skiing")
    assert "man-skiing.mp4: 718x718 @ 29.97 fps, 91 frames -> 64x64 @ 8 fps, 25 frames, 18 windows" in out
    run = next((tmp_path / "results").glob("best-*"))
    assert [entry["step"] for entry in read_log(run)] == list(range(1, 21))

    videos = tmp_path / "videos"
    script("generate_pretrained.py", "-m", run, "-o", videos,
           "-p", "a robot is V* skiing|two <b>cats</b> V* skiing", "-s", "7", "--steps", "2")
    page = open_page(videos / "video_lightbox.html")
    wait_until_playing(page)
    assert page.locator("#grid video").count() == 2
    assert any("two <b>cats</b> sks skiing" in text
               for text in texts(page, "#grid figcaption, #grid article, #grid li"))

    page = open_page(run / "video_lightbox.html")   # the samples, untuned base beside step 20
    wait_until_playing(page)
    assert page.locator("#grid video").count() == 2
