"""What the models see in videos: the recognizer's probabilities, and CLIP's embeddings of frames.

Shapes: f frames, h w c pixels and colours, k labels, d width of CLIP's embeddings, which have length 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from evaluation.recognizing import (
    CLIP_BATCH,
    ImageTextModel,
    MotionRecognizer,
    classify_motion,
    image_embeddings,
)
from evaluation.shown_videos import Exemplar, ShownVideo
from evaluation.similarity import exemplar_spacing
from utils.video import frame_changes, iter_frames, probe, read_frames

PIECE_BYTES = 2**28   # pixels of an exemplar that are in memory together, if they are more than one frame


@dataclass(frozen=True)
class VideoFeatures:
    """One video as the models see it."""

    probabilities: np.ndarray | None   # (k), of the labels; None without a recognizer
    embeds: np.ndarray                 # (f d), of the frames
    change: float | None               # mean difference of neighbouring frames, 0 to 255; None for one frame

    @property
    def top1(self) -> int | None:
        """Index of the likeliest label; None without a recognizer."""
        return None if self.probabilities is None else int(self.probabilities.argmax())


@dataclass(frozen=True)
class ExemplarFeatures:
    """The exemplars as CLIP sees them, and the unit of distance from them."""

    exemplars: Sequence[Exemplar]
    embeds: Sequence[np.ndarray]     # (f d) each
    spacing: float | None            # distance of exemplars of different scenes; None if it cannot be told


def video_features(videos: Sequence[ShownVideo], recognizer: MotionRecognizer | None,
                   clip_model: ImageTextModel, batch_size: int) -> dict[Path, VideoFeatures]:
    """Return {path: features} of videos, which are read `batch_size` at a time."""
    features = {}
    for first in range(0, len(videos), batch_size):
        batch = videos[first : first + batch_size]
        clips = [read_frames(video.path, range(video.num_frames)) for video in batch]   # (f h w c) each
        probabilities = (classify_motion(recognizer, clips, batch_size) if recognizer   # (n k)
                         else [None] * len(clips))
        for video, row, frames in zip(batch, probabilities, clips):
            embeds = image_embeddings(clip_model, frames).numpy()
            changes = frame_changes(frames)
            features[video.path] = VideoFeatures(row, embeds, float(np.mean(changes)) if changes else None)
    return features


def exemplar_features(exemplars: Mapping[float, Sequence[Exemplar]], num_frames: Mapping[float, int],
                      clip_model: ImageTextModel) -> dict[float, ExemplarFeatures]:
    """Return {rate: features} of {rate: exemplars}, with their spacing as seen by videos of `num_frames`."""
    embeds = {exemplar: exemplar_embeddings(exemplar, clip_model)
              for exemplar in dict.fromkeys(chain.from_iterable(exemplars.values()))}
    features = {}
    for fps, sampled in exemplars.items():
        rows, scenes = [embeds[exemplar] for exemplar in sampled], [exemplar.scene for exemplar in sampled]
        features[fps] = ExemplarFeatures(sampled, rows, exemplar_spacing(rows, scenes, num_frames[fps]))
    return features


def exemplar_embeddings(exemplar: Exemplar, clip_model: ImageTextModel) -> np.ndarray:
    """Return CLIP's embeddings (f d) of an exemplar's frames.

    The frames are read in pieces, because 20 seconds from a phone are 12 GB of pixels. Frames of up to 4 MB
    are embedded in the same batches as if all had been read at once.
    """
    info = probe(exemplar.path)
    chunk = min(CLIP_BATCH, max(1, PIECE_BYTES // (info.width * info.height * 3)))
    return np.concatenate([image_embeddings(clip_model, frames, CLIP_BATCH).numpy()
                           for frames in iter_frames(exemplar.path, exemplar.frames, chunk=chunk)])
