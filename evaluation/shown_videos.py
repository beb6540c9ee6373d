"""The videos to be measured, each with its prompt, seed and step, and whether it should show the motion.

A folder of videos is one group. A run folder, or its folder of samples, has a group for each step.
"""

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.motion_words import MotionName, asks_for_motion, without_motion
from evaluation.video_records import Value, is_tuned, making_of, settings_of
from rendering.gallery import first_text, group_label, list_videos, split_name
from training.config import Config
from training.config_loading import load_config
from training.run_folder import CONFIG_NAME
from utils.captions import captions_of, read_caption_index
from utils.containers import CLIPS_OF_A_FOLDER, is_clip
from utils.errors import UserError, attempt
from utils.prompts import tokens_in
from utils.video import VideoInfo, probe, sampled_frames, video_metadata
from utils.wording import first_few

STEP_FOLDER = re.compile(r"(?:.*/)?step_0*(\d+)/[^/]*")
AGAINST = "--against"
MAX_FRAMES = 4096   # of one video; rendered videos have some dozens


@dataclass(frozen=True)
class ShownVideo:
    """One video to be measured."""

    path: Path
    prompt: str           # as it was rendered
    seed: int | str | None
    group: str            # folder it lies in, for people: "step 500"
    step: int | None      # of the training, where the folder says it
    shows_motion: bool    # the prompt asks for the motion; otherwise it is an everyday prompt
    text: str             # the prompt without the motion
    num_frames: int
    fps: float
    is_tuned: bool        # rendered with a learned motion, by its own record
    settings: tuple[tuple[str, Any], ...]   # in which its reference must not differ: name and value
    making: tuple[Value, ...]               # all that is known of how it was rendered
    damage: str           # what the decoder found wrong; empty if nothing

    @property
    def key(self) -> tuple[str, int | str | None]:
        """What a video has in common with its reference."""
        return self.prompt, self.seed


@dataclass(frozen=True)
class Exemplar:
    path: Path
    scene: str                  # its caption: exemplars of one scene have the same
    text: str                   # the caption without the motion
    frames: tuple[int, ...]     # indices of recorded frames, at the rate of the videos
    damage: str = ""            # what the decoder found wrong; empty if nothing


def find_videos(folder: Path, motion: MotionName, role: str = "--videos") -> list[ShownVideo]:
    """Return the videos of a folder in natural order, after decoding every frame; of a run only the samples.

    Raises UserError naming every video that is broken, or if there are samples of several runs. `role`: what
    to call the folder in errors.
    """
    _check_folder(folder, role, "a folder of videos, or a run folder")
    listed = list_videos(folder)
    of_steps = [video for video in listed if STEP_FOLDER.fullmatch(video["file"])]
    runs = dict.fromkeys(Path(video["file"]).parent.parent.as_posix() for video in of_steps)
    if len(runs) > 1:
        raise UserError(f"{role}: {folder} holds samples of {len(runs)} runs, "
                        f"{first_few([run.removesuffix('/samples') for run in runs], 3)}. Name one of them.")
    listed = of_steps or listed
    if not listed and (folder / CONFIG_NAME).is_file():
        raise UserError(f"{role}: {folder} is a run without samples. Train with validation_steps='[...]', or "
                        f"render into another folder with generate_pretrained.py and name that.")
    if not listed:
        raise UserError(f"{role}: {folder} holds no videos. "
                        f"Render some with generate_pretrained.py -o {folder}.")
    paths = [folder / video["file"] for video in listed]
    facts = _checked(paths)
    with ThreadPoolExecutor() as pool:   # each call starts a process and waits for it
        records = list(pool.map(video_metadata, paths))
    default, videos = tokens_of_run(folder), []
    for path, video, record in zip(paths, listed, records):
        step, group = STEP_FOLDER.fullmatch(video["file"]), group_label(Path(video["file"]).parent.as_posix())
        said = video["prompt"]
        if said == split_name(path.name)[0]:   # where nothing says more than its name, its own record does
            said = first_text(record.get("prompt")) or said
        prompt = " ".join(said.split())   # a file may have line breaks and double spaces in it
        tokens = tokens_in(str(record.get("placeholder_token") or default))
        patterns = motion.patterns(tokens)
        videos.append(ShownVideo(path, prompt, video["seed"], group, int(step[1]) if step else None,
                                 asks_for_motion(prompt, patterns),
                                 without_motion(prompt, patterns, tokens),
                                 facts[path].num_frames, facts[path].fps, is_tuned(record),
                                 settings_of(facts[path], record), making_of(facts[path], record),
                                 facts[path].damage))
    return videos


def find_references(folder: Path, motion: MotionName) -> list[ShownVideo]:
    """Return the videos of the untuned base in a folder; of a run, the samples of step 0.

    Raises UserError if there are none, or if one was rendered with a tuned motion.
    """
    role = "--reference-videos"
    references = [video for video in find_videos(folder, motion, role) if not video.step]
    if not references:
        raise UserError(f"{role}: {folder} has samples of tuned steps only. Name videos of the untuned base.")
    for video in references:
        if video.is_tuned:
            raise UserError(f"{role}: {video.path} was rendered with a tuned motion. Name videos of the "
                            f"untuned base, rendered with generate_pretrained.py -m BASE.")
    return references


def find_exemplars(folder: Path, motion: MotionName, rates: Iterable[float]) -> dict[float, list[Exemplar]]:
    """Return {rate: exemplars} of a folder, sorted by name, after decoding every frame. `rates`: of the
    videos, each once.

    Raises UserError naming everything that is wrong with them.
    """
    _check_folder(folder, "--exemplars", "the folder of clips the motion was learned from")
    paths = sorted(path for path in folder.iterdir()
                   if is_clip(path) and not path.name.startswith("."))
    if not paths:
        raise UserError(f"--exemplars: {folder} holds no clips ({CLIPS_OF_A_FOLDER}). Name the folder of "
                        f"clips the motion was learned from.")
    problems = []
    facts = attempt(lambda: _checked(paths), {}, problems)
    index = attempt(lambda: read_caption_index(folder), None, problems)
    captions = {path: attempt(lambda path=path: captions_of(path, index, (path.name,))[0], "", problems)
                for path in paths if index is not None}
    if problems:
        raise UserError(*problems)
    # the same caption for all of them says nothing about their scenes
    scenes = captions if len(set(captions.values())) > 1 else {path: path.name for path in paths}
    patterns = motion.patterns(tokens_in(Config.placeholder_token))
    return {fps: [Exemplar(path, scenes[path], without_motion(captions[path], patterns),
                           sampled_frames(facts[path], fps), facts[path].damage) for path in paths]
            for fps in rates}


def tokens_of_run(folder: Path) -> str:
    """Return the words that V*, V2*, ... became in the samples of a run, by its config; else the default."""
    folder = folder.resolve()
    for samples in (folder / "samples", folder, folder.parent):
        if samples.name == "samples" and (samples.parent / CONFIG_NAME).is_file():
            return load_config(samples.parent / CONFIG_NAME)[0].placeholder_token
    return Config.placeholder_token


def match_references(videos: list[ShownVideo], references: list[ShownVideo]) -> dict[ShownVideo, ShownVideo]:
    """Return {video of an everyday prompt: its reference, of the same prompt and seed}.

    Raises UserError if a video has two references, or if a reference was rendered with other settings than
    its video. The motion alone would not explain their difference then.
    """
    by_key: dict[tuple, list[ShownVideo]] = {}
    for reference in references:
        by_key.setdefault(reference.key, []).append(reference)
    matched = {video: by_key[video.key] for video in videos if not video.shows_motion and video.key in by_key}
    for video, (reference, *others) in matched.items():
        if others:
            raise UserError(f"{reference.path} and {others[0].path}: have the same prompt and seed, and both "
                            f"could be the reference of {video.path}. Name a folder with one of them in "
                            f"--reference-videos.")
        ours, theirs = dict(video.settings), dict(reference.settings)
        differing = [f"{name} {theirs[name]!r} instead of {ours[name]!r}" for name in ours
                     if name in theirs and theirs[name] != ours[name]]
        if differing:
            raise UserError(f"{reference.path}: was rendered in another way than {video.path}, with "
                            f"{', '.join(differing)}. Render the untuned base as the videos were "
                            f"rendered (generate_pretrained.py -m RUN:0), and name that folder in "
                            f"--reference-videos.")
    return {video: reference for video, (reference,) in matched.items() if reference.path != video.path}


def find_partners(videos: list[ShownVideo], others: list[ShownVideo]) -> dict[ShownVideo, ShownVideo]:
    """Return {video: the one of `others` that has its prompt and seed}. No video is its own partner.

    Raises UserError if two videos of one folder, or two of `others`, have the same prompt and seed.
    """
    by_key = _by_key(others)
    for group in {video.group for video in videos}:   # a run has the same prompts and seeds in every step
        _by_key([video for video in videos if video.group == group])
    return {video: by_key[video.key] for video in videos
            if video.key in by_key and by_key[video.key].path.resolve() != video.path.resolve()}


def _by_key(videos: list[ShownVideo]) -> dict[tuple, ShownVideo]:
    """Return {prompt and seed: video}. Raises UserError if two videos have the same."""
    found = {}
    for video in videos:
        if (first := found.setdefault(video.key, video)) is not video:
            raise UserError(f"{AGAINST}: {first.path} and {video.path} have the same prompt and seed, so "
                            f"both could be one of a pair. Name folders that hold one of them, such as one "
                            f"step of a run.")
    return found


def read_sidecar(folder: Path) -> dict[str, Any]:
    """Return videos.json of a folder, empty if it has none.

    Raises UserError if it is no JSON object, because scores are added to it and nothing in it should be lost.
    """
    path = folder / "videos.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Mend or remove it.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object of videos. Mend or remove it.")
    return content


def _check_folder(folder: Path, role: str, wanted: str) -> None:
    """Raise UserError unless `folder` is a folder."""
    if not folder.is_dir():
        raise UserError(f"{role}: {folder} {'is a file' if folder.exists() else 'does not exist'}. "
                        f"Name {wanted}.")


def _checked(paths: list[Path]) -> dict[Path, VideoInfo]:
    """Return the facts about each file. All frames are decoded, to find damage before anything slow."""
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
