"""Putting a motion on the Hugging Face hub: weights, config, model card and samples, in one commit."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.motion_weights import read_motion_info
from rendering.gallery import list_videos
from rendering.video_grid import write_grid
from training.config_loading import parse_config
from training.model_card import GRID_NAME, model_card
from training.run_folder import CONFIG_NAME, MOTION_NAME, samples_dir
from utils.hub import CARD_NAME, upload
from utils.prompts import Prompt
from utils.video import probe

MOST_SAMPLES, COLUMNS, LONGEST_SIDE = 9, 3, 192   # videos of the grid; videos a row; pixels of a video
SCORES_NAME = "scores.json"   # evaluation/summary.py has its schema


def publish(motion: Path, name: str) -> str:
    """Upload the file `motion` with its card to `name` (USER/NAME) on the hub. Return its address there.

    The samples and scores of its step are taken from the run that it lies in. Raises UserError if the hub
    does not take it.
    """
    info = read_motion_info(motion)
    config, _ = parse_config(info.config, f"the config in {motion}")
    run = motion.parent.parent if motion.parent.name.startswith("checkpoint-") else motion.parent
    samples = list_videos(samples_dir(run, info.step))[:MOST_SAMPLES]
    prompts = [Prompt(video["seed"], video["prompt"]) for video in samples]
    files = {MOTION_NAME: motion, CONFIG_NAME: info.config.encode(),
             CARD_NAME: model_card(name, info, config, prompts, scores_of(run, info.step)).encode()}
    with TemporaryDirectory() as folder:
        if samples:
            paths = [samples_dir(run, info.step) / video["file"] for video in samples]
            files[GRID_NAME] = Path(folder) / GRID_NAME
            write_grid(paths, files[GRID_NAME], COLUMNS, shown_size(paths[0]))
        return upload(name, files, f"Motion of {config.subject}, {info.step} steps")


def shown_size(video: Path) -> tuple[int, int]:
    """Return the width and height of a video in the grid, in pixels."""
    info = probe(video)
    factor = min(1, LONGEST_SIDE / max(info.width, info.height))
    return round(info.width * factor), round(info.height * factor)


def scores_of(run: Path, step: int) -> dict[str, Any]:
    """Return the measures of a step of a run that evaluate_motion.py has scored; none if it has not."""
    try:
        groups = json.loads((run / SCORES_NAME).read_text(encoding="utf-8"))["groups"]
        return next((group["measures"] for group in groups if group["step"] == step), {})
    except (OSError, ValueError, KeyError, TypeError):
        return {}
