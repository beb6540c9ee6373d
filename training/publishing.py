"""Putting a motion on the Hugging Face hub: weights, config, model card and samples, in one commit."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.motion_weights import MotionInfo, read_motion_info
from rendering.gallery import list_videos
from rendering.video_grid import write_grid
from training.config import Config
from training.config_loading import parse_config
from training.model_card import GRID_NAME, model_card
from training.run_folder import CONFIG_NAME, MOTION_NAME, run_of, samples_dir
from utils.commands import script_command
from utils.errors import UserError
from utils.hub import CARD_NAME, upload
from utils.prompts import Prompt
from utils.video import probe

MOST_SAMPLES, COLUMNS, LONGEST_SIDE = 9, 3, 192   # videos of the grid; videos a row; pixels of a video
SCORES_NAME = "scores.json"   # evaluation/summary.py has its schema


def publish(motion: Path, name: str) -> None:
    """Upload the file `motion` with its card to `name` (USER/NAME) on the hub.

    If the hub refuses the upload, a UserError says the command that uploads later. If Ctrl-C ends the upload,
    the same command is printed on stderr.
    """
    named = motion.parent if motion.name == MOTION_NAME else motion
    later = (f"The result is whole: {motion}. Upload it later with: "
             + script_command("generate_pretrained.py", "-m", named, "--push-to-hub", name))
    try:
        print(f"uploaded: {upload_motion(motion, name)}")
    except UserError as error:
        raise UserError(*error.problems, later) from None
    except KeyboardInterrupt:
        print(f"\n{later}", file=sys.stderr)
        raise


def upload_motion(motion: Path, name: str) -> str:
    """Upload the file `motion` with its card to `name` on the hub, and return its address there.

    The samples and scores of its step are taken from the run whose result it is.
    """
    info = read_motion_info(motion)
    config, _ = parse_config(info.config, f"the config in {motion}")
    run = run_of(motion.parent)
    print(f"uploading step {info.step} of {config.max_train_steps}: {motion}")
    samples, scores = [], {}
    if is_result(motion, info, config):
        samples = list_videos(samples_dir(run, info.step))[:MOST_SAMPLES]
        scores = scores_of(run, info.step)
    prompts = [Prompt(video["seed"], video["prompt"]) for video in samples]
    files = {MOTION_NAME: motion, CONFIG_NAME: info.config.encode(),
             CARD_NAME: model_card(name, info, config, prompts, scores).encode()}
    with TemporaryDirectory() as folder:
        if samples:
            paths = [samples_dir(run, info.step) / video["file"] for video in samples]
            files[GRID_NAME] = Path(folder) / GRID_NAME
            write_grid(paths, files[GRID_NAME], COLUMNS, shown_size(paths[0]))
        return upload(name, files, f"Motion of {config.subject}, {info.step} steps")


def is_result(motion: Path, info: MotionInfo, config: Config) -> bool:
    """Say whether a file is the result of its run, and not a LoRA that was exported from the result."""
    return motion.name == MOTION_NAME and config.lora_rank == (info.lora.rank if info.lora else 0)


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
