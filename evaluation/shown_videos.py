"""The videos to be measured, and what is known of each: prompt, seed, step, whether it is to show the motion.

A folder of videos is one group; a run folder, or its samples, has a group for each step.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from evaluation.motion_words import asks_for_motion, without_motion
from rendering.gallery import group_label, list_videos
from training.config import Config
from training.config_loading import load_config
from training.run_folder import CONFIG_NAME
from utils.captions import captions_of, read_caption_index
from utils.containers import VIDEO_SUFFIXES, is_clip
from utils.errors import UserError, attempt
from utils.prompts import MOTION_TOKEN
from utils.video import VideoInfo, probe, read_metadata, sampled_frames

STEP_FOLDER = re.compile(r"(?:.*/)?step_0*(\d+)/[^/]*")
MAX_FRAMES = 4096   # of one video; what was rendered has some dozens


@dataclass(frozen=True)
class ShownVideo:
    """One video to be measured."""

    path: Path
    prompt: str           # as it was rendered
    seed: int | str | None
    group: str            # folder it lies in, for people: "step 500"
    step: int | None      # of the training, where the folder says it
    shows_motion: bool    # the prompt asks for it; otherwise it is an everyday prompt
    text: str             # the prompt without the motion
    num_frames: int
    fps: float
    is_tuned: bool        # rendered with a learned motion, by its own record

    @property
    def key(self) -> tuple[str, int | str | None]:
        """What it has in common with its reference."""
        return self.prompt, self.seed


@dataclass(frozen=True)
class Exemplar:
    path: Path
    scene: str                  # its caption, to tell other scenes from other takes of the same one
    text: str                   # the caption without the motion
    frames: tuple[int, ...]     # recorded frames, at the rate of the videos


def find_videos(folder: Path, label: str, role: str = "VIDEOS") -> list[ShownVideo]:
    """Return the videos of a folder, every frame of which can be decoded, in natural order.

    Of a run only the samples. `label`: the motion's name. Raises UserError naming every video that is broken.
    """
    _check_folder(folder, role, "a folder of videos, or a run folder")
    listed = list_videos(folder)
    listed = [video for video in listed if STEP_FOLDER.fullmatch(video["file"])] or listed
    if not listed and (folder / CONFIG_NAME).is_file():
        raise UserError(f"{role}: {folder} is a run without samples. Train with validation_steps='[...]', or "
                        f"render into another folder with generate_pretrained.py and name that.")
    if not listed:
        raise UserError(f"{role}: {folder} holds no videos. "
                        f"Render some with generate_pretrained.py -o {folder}.")
    paths = [folder / video["file"] for video in listed]
    facts = _checked(paths)
    with ThreadPoolExecutor() as pool:   # each starts a process and waits for it
        records = list(pool.map(read_metadata, paths))
    identifiers = identifiers_of(folder, records)
    return [describe(path, video, record, identifiers, label, facts[path].num_frames,
                     facts[path].fps)
            for path, video, record in zip(paths, listed, records)]


def describe(path: Path, listed: dict, record: dict, identifiers: set[str], label: str, num_frames: int,
             fps: float) -> ShownVideo:
    step = STEP_FOLDER.fullmatch(listed["file"])
    inside = Path(listed["file"]).parent.as_posix()
    # as in the file, whatever it has of line breaks and double spaces
    prompt = " ".join(listed["prompt"].split())
    return ShownVideo(path, prompt, listed["seed"], group_label(inside), int(step[1]) if step else None,
                      asks_for_motion(prompt, identifiers, label), without_motion(prompt, identifiers, label),
                      num_frames, fps, bool(record.get("motion")) and record.get("strength") != 0)


def find_references(folder: Path, label: str) -> list[ShownVideo]:
    """Return the videos of the untuned base in a folder; of a run, those of step 0.

    Raises UserError if there are none, or one was rendered with a tuned motion.
    """
    role = "--reference-videos"
    references = [video for video in find_videos(folder, label, role) if not video.step]
    if not references:
        raise UserError(f"{role}: {folder} has samples of tuned steps only. Name videos of the untuned base.")
    for video in references:
        if video.is_tuned:
            raise UserError(f"{role}: {video.path} was rendered with a tuned motion. Name videos of the "
                            f"untuned base, rendered with generate_pretrained.py -m BASE.")
    return references


def find_exemplars(folder: Path, label: str, fps: float) -> list[Exemplar]:
    """Return the exemplars of a folder, sorted by name, every frame checked, for videos of `fps`.

    Raises UserError naming everything wrong with them.
    """
    _check_folder(folder, "--exemplars", "the folder of clips the motion was learned from")
    paths = sorted(path for path in folder.iterdir()
                   if is_clip(path) and not path.name.startswith("."))
    if not paths:
        raise UserError(f"--exemplars: {folder} holds no clips ({', '.join(VIDEO_SUFFIXES)}).")
    problems = []
    facts = attempt(lambda: _checked(paths), {}, problems)
    index = attempt(lambda: read_caption_index(folder), None, problems)
    if problems:
        raise UserError(*problems)
    captions = {path: captions_of(path, index, (path.name,))[0] for path in paths}
    # one caption for all of them says nothing about their scenes
    scenes = captions if len(set(captions.values())) > 1 else {path: path.name for path in paths}
    identifiers = {Config.placeholder_token}
    return [Exemplar(path, scenes[path], without_motion(captions[path], identifiers, label),
                     sampled_frames(facts[path], fps)) for path in paths]


def identifiers_of(folder: Path, records: Iterable[dict]) -> set[str]:
    """Return what stands for V* in these prompts: by the videos' records, the run's config, by default."""
    recorded = {str(made["placeholder_token"]) for made in records if made.get("placeholder_token")}
    folder = folder.resolve()
    run = next((place.parent for place in (folder / "samples", folder, folder.parent)
                if place.name == "samples"
                and (place.parent / CONFIG_NAME).is_file()), None)
    if run:
        recorded.add(load_config(run / CONFIG_NAME)[0].placeholder_token)
    return (recorded | {Config.placeholder_token}) - {MOTION_TOKEN}


def match_references(videos: list[ShownVideo], references: list[ShownVideo]) -> dict[ShownVideo, ShownVideo]:
    """Return the reference of each video of an everyday prompt: same prompt, same seed."""
    by_key = {reference.key: reference for reference in references}
    return {video: by_key[video.key] for video in videos
            if not video.shows_motion and video.key in by_key and by_key[video.key].path != video.path}


def _check_folder(folder: Path, role: str, wanted: str) -> None:
    """Raise UserError unless `folder` is one."""
    if not folder.is_dir():
        raise UserError(f"{role}: {folder} {'is a file' if folder.exists() else 'does not exist'}. "
                        f"Name {wanted}.")


def _checked(paths: list[Path]) -> dict[Path, VideoInfo]:
    """Return what is found in each; decodes all, so that damage is found before anything slow."""
    facts, problems = {}, []
    for path in paths:
        def check(path: Path = path) -> VideoInfo:
            info = probe(path)
            if info.num_frames > MAX_FRAMES:
                raise UserError(f"{path}: has {info.num_frames} frames. "
                                f"Measure clips of at most {MAX_FRAMES}.")
            return info
        facts[path] = attempt(check, None, problems)
    if problems:
        raise UserError(*problems)
    return facts
