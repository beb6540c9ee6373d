"""The videos and clips of an evaluation, and everything that is wrong or odd about them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from evaluation.motion_words import MotionName, named_label
from evaluation.shown_videos import (
    AGAINST,
    Exemplar,
    ShownVideo,
    find_exemplars,
    find_partners,
    find_references,
    find_videos,
    match_references,
    read_sidecar,
)
from evaluation.video_records import differing
from utils.errors import attempt
from utils.files import check_writable
from utils.wording import counted


@dataclass(frozen=True)
class Material:
    """The videos and clips of an evaluation, and everything that is wrong or odd about them."""

    videos: list[ShownVideo]
    exemplars: dict[float, list[Exemplar]]     # by the rate of the videos that are compared with them
    references: dict[ShownVideo, ShownVideo]   # everyday video -> the untuned base's video of the same prompt
    others: list[ShownVideo]                   # of the folder to compare with; none without one
    partners: dict[ShownVideo, ShownVideo]     # video -> the one of `others` that has its prompt and seed
    problems: list[str]
    notes: list[str]


def find_material(folder: Path, exemplars_dir: Path, motion: MotionName,
                  base_dir: Path | None = None, other_dir: Path | None = None) -> Material:
    """Return the videos, the exemplars and the references, with everything that is wrong with them.

    `base_dir`: videos of the untuned base; without it the references are the samples of step 0, if any.
    `other_dir`: videos to compare with, pair by pair.
    """
    problems, notes = [], []
    videos = attempt(lambda: find_videos(folder, motion), [], problems)
    others = attempt(lambda: find_videos(other_dir, motion, AGAINST), [], problems) if other_dir else []
    partners = attempt(lambda: find_partners(videos, others), None, problems) if others else None
    if videos and others and partners == {}:
        problems.append(f"{AGAINST}: {other_dir} has no other video of a prompt and seed of {folder}. Render "
                        f"the same prompts with the same seeds.")
    partners = partners or {}
    rates = list(dict.fromkeys(video.fps for video in [*videos, *partners.values()])) or [8.0]
    exemplars = attempt(lambda: find_exemplars(exemplars_dir, motion, rates), {}, problems)
    everyday = [video for video in videos if not video.shows_motion]
    base = [video for video in videos if video.step == 0]
    if base_dir:
        base = attempt(lambda: find_references(base_dir, motion), [], problems)
    matched = attempt(lambda: match_references(videos, base), None, problems)
    # a partner that was rendered in another way than the base has no references, and the note says so
    references = attempt(lambda: match_references(list(partners.values()), base), {}, notes)
    references |= matched or {}
    notes += damage_notes([*videos, *others, *references.values(), *chain.from_iterable(exemplars.values())])
    notes += mixed_notes([*videos, *others])
    if videos:
        problems += check_writable(folder)
        for place in dict.fromkeys(video.path.parent for video in videos):
            attempt(lambda place=place: read_sidecar(place), None, problems)
        if len(everyday) == len(videos) and matched:
            notes.append("no prompt asks for the motion, so only what is kept of the base is measured.")
        elif len(everyday) == len(videos):
            problems.append(f"{folder}: no prompt asks for the motion (V*, or {motion.label!r}), so "
                            f"there is nothing to find it in. Render prompts that do, or name another "
                            f"--motion or --motion-phrase.")
    asking = [video.prompt for video in videos if video.shows_motion]
    if asking and not motion.phrase and not any(named_label(prompt, [motion.label]) for prompt in asking):
        notes.append(f"no prompt calls the motion {motion.label!r}, so text alignment counts the words "
                     f"behind V*. Say which words name it: --motion-phrase \"doing the V* ...\".")
    if base_dir and base and everyday and matched == {}:
        problems.append(f"--reference-videos: {base_dir} has no video of an everyday prompt and seed of "
                        f"{folder}. Render the same prompts with the untuned base.")
    if everyday and not base:
        notes.append(f"{counted(len(everyday), 'video')} {'is' if len(everyday) == 1 else 'are'} of everyday "
                     f"prompts. How well these are kept is measured against --reference-videos of the "
                     f"untuned base.")
    elif base_dir and len(matched or {}) < len(everyday):
        num_without = len(everyday) - len(matched or {})
        notes.append(f"{num_without} of {len(everyday)} videos of everyday prompts have no reference of the "
                     f"same prompt and seed.")
    return Material(videos, exemplars, references, others, partners, problems, notes)


def damage_notes(shown: Iterable[ShownVideo | Exemplar]) -> list[str]:
    """Return a note for each damaged file, in the words that training has for damaged clips."""
    return [f"{path}: the decoder found it damaged ({damage}). Look at it, or copy it again."
            for path, damage in {one.path: one.damage for one in shown}.items() if damage]


def mixed_notes(videos: Sequence[ShownVideo]) -> list[str]:
    """Return a note for each folder whose videos were rendered in different ways, because their means mix
    them."""
    notes = []
    for folder in dict.fromkeys(video.path.parent for video in videos):
        inside = [video for video in videos if video.path.parent == folder]
        if differences := differing([video.making for video in inside]):
            notes.append(f"{folder}: its {len(inside)} videos were rendered in different ways, and every "
                         f"mean is over all of them: {'; '.join(differences)}. To measure one kind alone, "
                         f"move its videos into a folder of their own. A folder inside this one has its own "
                         f"column.")
    return notes


def everyday_prompts(videos: Sequence[ShownVideo], labels: Sequence[str]) -> dict[str, Any]:
    """Return the number of everyday prompts, and those of them that name none of the recognizer's labels."""
    prompts = dict.fromkeys(video.prompt for video in videos if not video.shows_motion)
    return {"num_prompts": len(prompts),
            "without_label": [prompt for prompt in prompts if named_label(prompt, labels) is None]}


def label_notes(everyday: dict[str, Any] | None) -> list[str]:
    """Return the note on everyday prompts that name no label. `everyday`: None without a recognizer."""
    if not everyday or not everyday["without_label"]:
        return []
    unnamed = everyday["without_label"]
    return [f"{len(unnamed)} of {counted(everyday['num_prompts'], 'everyday prompt')} "
            f"{'names' if len(unnamed) == 1 else 'name'} no label of the recognizer, such as "
            f"\"{unnamed[0]}\", so the probability of everyday motions leaves their videos out."]
