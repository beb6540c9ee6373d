"""The scores: one table says of each its key, its heading, which values are good, and how it is computed.

To add a column, add a row to MEASURES. The terminal, scores.json, the plot, the gallery and the ablation take
their columns from there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evaluation.features import ExemplarFeatures, VideoFeatures
from evaluation.motion_words import named_label
from evaluation.shown_videos import ShownVideo
from evaluation.similarity import (
    COPY_RATIO,
    diversity,
    frame_similarity,
    nearest,
    temporal_consistency,
    text_alignment,
)

STILL = 0.1   # mean absolute difference of neighbouring frames, of 255, below which nothing moves


@dataclass(frozen=True)
class MeasuredVideo:
    """One video, with everything that its scores are computed from."""

    video: ShownVideo
    features: VideoFeatures
    reference: VideoFeatures | None   # of the untuned base's video of the same everyday prompt and seed
    text_embed: np.ndarray | None     # (d), CLIP's, of the prompt without the motion; None if nothing is left
    exemplars: ExemplarFeatures
    labels: Sequence[str]             # of the recognizer; none without a recognizer
    motion: int | None                # index of the motion's label; None without a recognizer

    @cached_property
    def asked(self) -> int | None:
        """Index of the label that the prompt asks for; None if an everyday prompt names none, or without a
        recognizer."""
        if self.video.shows_motion:
            return self.motion
        named = named_label(self.video.prompt, self.labels)
        return None if named is None else self.labels.index(named)

    @cached_property
    def nearest(self) -> tuple[int, float] | None:
        """Index of the nearest exemplar and its distance; None if the prompt does not ask for the motion."""
        return nearest(self.features.embeds, self.exemplars.embeds) if self.video.shows_motion else None

    @property
    def ratio(self) -> float | None:
        """Distance from the nearest exemplar, where 1 is the distance of exemplars of different scenes."""
        return self.nearest[1] / self.exemplars.spacing if self.nearest and self.exemplars.spacing else None

    @cached_property
    def scores(self) -> dict[str, Any]:
        """The scores that apply to the video, and what else scores.json tells about it."""
        scores = {} if self.features.top1 is None else {"top1": self.labels[self.features.top1]}
        if self.nearest:
            exemplar, distance = self.exemplars.exemplars[self.nearest[0]], self.nearest[1]
            scores |= {"nearest_exemplar": exemplar.path.name, "exemplar_distance": distance,
                       "asks_for_exemplar": self.video.text == exemplar.text}
        elif self.asked is not None:
            scores["named"] = self.labels[self.asked]
        scores |= {measure.score: measure.of_video(self) for measure in MEASURES if measure.of_video}
        return {name: score for name, score in scores.items() if score is not None}


@dataclass(frozen=True)
class Measure:
    """One score, averaged over the videos of a folder or a step."""

    key: str                  # of the average in scores.json
    heading: str
    better: str               # which values are good
    of_video: Callable[[MeasuredVideo], float | bool | None] | None   # returns None if it does not apply
    of_prompt: Callable[[Sequence[MeasuredVideo]], float] | None = None   # instead: of videos of one prompt
    video_key: str = ""       # of a video's score in scores.json; `key` if empty
    is_share: bool = False    # the score of a video is yes or no
    limits: tuple[float, float] = (-np.inf, np.inf)   # of the score
    panel: str = ""           # of the plot
    gallery: str = ""         # what the gallery calls the score

    @property
    def score(self) -> str:
        return self.video_key or self.key


def probability(one: MeasuredVideo) -> float | None:
    """Of the motion that the prompt asks for."""
    return None if one.asked is None else float(one.features.probabilities[one.asked])


def change(one: MeasuredVideo) -> float | None:
    """Of the probability of the motion that the prompt asks for, from that of the reference."""
    if one.asked is None or one.reference is None:
        return None
    return float(one.features.probabilities[one.asked] - one.reference.probabilities[one.asked])


MEASURES = (
    Measure("motion_probability", "motion: probability", "higher",
            lambda one: probability(one) if one.video.shows_motion else None,
            limits=(0, 1), panel="motion", gallery="motion"),
    Measure("motion_top1", "motion: ranked first", "higher",
            lambda one: one.features.top1 == one.asked if one.video.shows_motion and one.labels else None,
            is_share=True, panel="motion"),
    Measure("text_alignment", "text alignment", "higher",
            lambda one: text_alignment(one.features.embeds, one.text_embed) if one.video.text else None,
            limits=(-1, 1), panel="text alignment", gallery="text"),
    Measure("exemplar_ratio", "exemplars: distance", "1: as they lie apart", lambda one: one.ratio,
            limits=(0, np.inf), panel="exemplars", gallery="distance"),
    Measure("copies", "exemplars: copies", "0",
            lambda one: one.ratio < COPY_RATIO if one.ratio is not None else None,
            video_key="copy", is_share=True, panel="exemplars", gallery="copy"),
    Measure("diversity", "diversity over seeds", "higher", None,
            of_prompt=lambda videos: diversity([one.features.embeds for one in videos]), limits=(0, 2)),
    Measure("temporal_consistency", "temporal consistency", "higher, if not frozen",
            lambda one: temporal_consistency(one.features.embeds), limits=(-1, 1)),
    Measure("frozen", "frozen videos", "0",
            lambda one: None if one.features.change is None else one.features.change < STILL, is_share=True),
    Measure("named_probability", "everyday: probability", "higher",
            lambda one: None if one.video.shows_motion else probability(one),
            limits=(0, 1), panel="everyday prompts", gallery="motion named"),
    Measure("kept_top1", "everyday: motion as base's", "higher",
            lambda one: one.features.top1 == one.reference.top1 if one.reference and one.labels else None,
            is_share=True, panel="everyday prompts"),
    Measure("kept_change", "everyday: change of prob.", "0", change, limits=(-1, 1)),
    Measure("kept_similarity", "everyday: like the base's", "higher",
            lambda one: frame_similarity(one.features.embeds, one.reference.embeds) if one.reference
            else None, limits=(-1, 1), panel="everyday prompts", gallery="like base"),
)
SHARE_PANELS = ("motion", "everyday prompts")   # panels of the plot that go from 0 to 1
