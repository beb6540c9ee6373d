"""What a recognizer and a CLIP see in videos, and the numbers made of it: a dict of scores for each video.

Shapes: n videos, f frames, h w c pixels and colours, k labels, d width of CLIP's embeddings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.motion_words import named_label
from evaluation.recognizing import (
    ImageTextModel,
    MotionRecognizer,
    classify_motion,
    image_embeddings,
    label_index,
    text_embeddings,
)
from evaluation.shown_videos import Exemplar, ShownVideo
from evaluation.similarity import (
    COPY_RATIO,
    diversity,
    exemplar_spacing,
    frame_similarity,
    nearest,
    temporal_consistency,
    text_alignment,
)
from utils.video import iter_frames, probe, read_frames

PIECE_FRAMES, PIECE_BYTES = 64, 2**28   # of an exemplar, at most this much at a time: CLIP's batch, memory
FROZEN = 0.1   # mean absolute difference of adjacent frames, of 255, below which nothing moves


@dataclass(frozen=True)
class Look:
    """One video as the models see it."""

    probabilities: np.ndarray   # (k), of the motions
    embeds: np.ndarray          # (f d), of the frames, of length 1
    movement: float             # mean absolute difference of adjacent frames, of 255


@dataclass(frozen=True)
class ExemplarLooks:
    """The exemplars' frames, and the yardstick of copying: how far apart exemplars of other scenes are."""

    names: tuple[str, ...]
    texts: tuple[str, ...]           # captions without the motion
    embeds: tuple[np.ndarray, ...]   # (f d) each
    spacing: float | None            # None: there are no two scenes, or they look alike


def look_at(clips: Iterable[tuple[Path, Sequence[int]]], recognizer: MotionRecognizer,
            clip_model: ImageTextModel, batch_size: int) -> list[Look]:
    """Return what the models see in the given frames of videos, `batch_size` videos at a time."""
    clips, looks = list(clips), []
    for first in range(0, len(clips), batch_size):
        # (f h w c) each
        batch = [read_frames(path, indices) for path, indices in clips[first : first + batch_size]]
        probabilities = classify_motion(recognizer, batch, batch_size)                # (n k)
        looks += [Look(found, image_embeddings(clip_model, frames).numpy(), movement(frames))
                  for found, frames in zip(probabilities, batch)]
    return looks


def movement(frames: np.ndarray) -> float:
    """Return the mean absolute difference of adjacent frames (f h w c), of 255; 0 for a single frame."""
    pairs = zip(frames[1:], frames[:-1])   # pair by pair: frames as integers would be twice the memory
    return float(np.mean([np.abs(new.astype(np.int16) - old).mean() for new, old in pairs] or [0.0]))


def look_at_exemplars(exemplars: Sequence[Exemplar], num_frames: int,
                      clip_model: ImageTextModel) -> ExemplarLooks:
    """Return the exemplars' frames, and their spacing for videos of `num_frames`."""
    embeds = tuple(exemplar_embeddings(exemplar, clip_model) for exemplar in exemplars)
    spacing = exemplar_spacing(embeds, [exemplar.scene for exemplar in exemplars], num_frames)
    return ExemplarLooks(tuple(exemplar.path.name for exemplar in exemplars),
                         tuple(exemplar.text for exemplar in exemplars), embeds, spacing)


def exemplar_embeddings(exemplar: Exemplar, clip_model: ImageTextModel) -> np.ndarray:
    """Return CLIP's embeddings (f d) of an exemplar's frames, read in pieces: a phone's clip of 20 seconds is
    12 GB of pixels. A frame of up to 4 MB is embedded in the batch it would be in if all were read."""
    info = probe(exemplar.path)
    chunk = min(PIECE_FRAMES, max(1, PIECE_BYTES // (info.width * info.height * 3)))
    return np.concatenate([image_embeddings(clip_model, frames, PIECE_FRAMES).numpy()
                           for frames in iter_frames(exemplar.path, exemplar.frames, chunk=chunk)])


def score_videos(videos: Sequence[ShownVideo], looks: Mapping[Path, Look], exemplars: ExemplarLooks,
                 references: Mapping[ShownVideo, ShownVideo], label: str, recognizer: MotionRecognizer,
                 clip_model: ImageTextModel) -> list[dict[str, Any]]:
    """Return the scores of each video; what does not apply to it is left out. See evaluation/scores.py for their
    meaning."""
    texts = sorted({video.text for video in videos if video.text})
    text_embeds = dict(zip(texts, text_embeddings(clip_model, texts).numpy()))
    at = label_index(recognizer, label)
    scores = []
    for video in videos:
        look = looks[video.path]
        score = {"top1": recognizer.labels[int(look.probabilities.argmax())],
                 "frozen": look.movement < FROZEN,
                 "temporal_consistency": temporal_consistency(look.embeds)}
        if video.text:
            score["text_alignment"] = text_alignment(look.embeds, text_embeds[video.text])
        if video.shows_motion:
            score |= {"motion_probability": float(look.probabilities[at]),
                      "motion_top1": bool(look.probabilities.argmax() == at),
                      **copying_scores(video, look, exemplars)}
        else:
            score |= everyday_scores(video, look, recognizer.labels)
            if video in references:
                score |= keeping_scores(video, look, looks[references[video].path], recognizer.labels)
        scores.append({name: value for name, value in score.items() if value is not None})
    return scores


def copying_scores(video: ShownVideo, look: Look, exemplars: ExemplarLooks) -> dict[str, Any]:
    """How near a video is to the nearest exemplar, in units of the exemplars' own spacing."""
    index, distance = nearest(look.embeds, exemplars.embeds)
    scores = {"nearest_exemplar": exemplars.names[index], "exemplar_distance": distance,
              "asks_for_exemplar": video.text == exemplars.texts[index]}
    if exemplars.spacing is not None:
        ratio = distance / exemplars.spacing
        scores |= {"exemplar_ratio": ratio, "copy": ratio < COPY_RATIO}
    return scores


def everyday_scores(video: ShownVideo, look: Look, labels: Sequence[str]) -> dict[str, Any]:
    """How surely a video of an everyday prompt shows the motion its prompt names, if it names a known one."""
    named = named_label(video.prompt, labels)
    if named is None:
        return {}
    return {"named": named, "named_probability": float(look.probabilities[labels.index(named)])}


def keeping_scores(video: ShownVideo, look: Look, reference: Look, labels: Sequence[str]) -> dict[str, Any]:
    """What tuning left of the untuned base's video of the same prompt and seed."""
    scores = {"kept_top1": bool(look.probabilities.argmax() == reference.probabilities.argmax()),
              "kept_similarity": frame_similarity(look.embeds, reference.embeds)}
    named = named_label(video.prompt, labels)
    if named is not None:
        at = labels.index(named)
        scores["kept_change"] = float(look.probabilities[at] - reference.probabilities[at])
    return scores


def diversity_of_prompts(videos: Sequence[ShownVideo], looks: Mapping[Path, Look]) -> dict[str, list[float]]:
    """Return {group: diversity over seeds of each prompt that asks for the motion and has several}."""
    by_prompt = {}
    for video in videos:
        if video.shows_motion:
            by_prompt.setdefault((video.group, video.prompt), []).append(looks[video.path].embeds)
    found = {video.group: [] for video in videos}
    for (group, _), embeds in by_prompt.items():
        if len(embeds) > 1:
            found[group].append(diversity(embeds))
    return found


def frames_of(videos: Iterable[ShownVideo]) -> list[tuple[Path, range]]:
    """Return what `look_at` takes: every frame of each video."""
    return [(video.path, range(video.num_frames)) for video in videos]
