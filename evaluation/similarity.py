"""How alike videos are, from the embeddings of their frames.

Shapes: f frames, d width of an embedding. Every embedding has length 1, so products are cosines.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

# A video is a copy if its distance from an exemplar is below this share of the spacing of the exemplars.
# Distances with the bundled CLIP: at most 0.08 for exemplars that are encoded again, mirrored or blurred,
# and 0.13 if they are shifted by two pixels. At least 0.70 for clips of other characters. 0.05 to 0.18 for
# new takes of an exemplar's own character in its own place: CLIP takes them for copies too.
COPY_RATIO = 0.5
# 1 - cosine below which exemplars look alike, and their spacing is no unit of distance. Rounding causes
# 1e-7, and encoding a clip again 0.0001. With the bundled CLIP the bundled exemplars are 0.37 apart, and
# 0.028 from their mirror images.
MIN_SPACING = 0.005


def text_alignment(embeds: np.ndarray, text_embed: np.ndarray) -> float:
    """Return the cosine of a text (d) and frames (f d), averaged over frames."""
    return float((embeds @ text_embed).mean())


def temporal_consistency(embeds: np.ndarray) -> float | None:
    """Return the cosine of neighbouring frames (f d), averaged; None for a single frame."""
    return float((embeds[1:] * embeds[:-1]).sum(axis=1).mean()) if len(embeds) > 1 else None


def frame_similarity(embeds: np.ndarray, reference: np.ndarray) -> float:
    """Return the cosine of frames (f d) that show the same moment, averaged over the shorter video."""
    num = min(len(embeds), len(reference))
    return float((embeds[:num] * reference[:num]).sum(axis=1).mean())


def sequence_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return 1 - cosine, averaged over frames, at the offset where the shorter video (f d) fits best.

    A window cut out of an exemplar has distance 0 from it.
    """
    short, long = sorted((one, other), key=len)
    cosines = short @ long.T                                        # (f_short f_long)
    offsets = range(len(long) - len(short) + 1)
    return float(min(1 - np.diagonal(cosines, offset).mean() for offset in offsets))


def nearest(embeds: np.ndarray, exemplars: Sequence[np.ndarray]) -> tuple[int, float]:
    """Return the index of the exemplar (f d) that is nearest to a video (f d), and its distance."""
    distances = [sequence_distance(embeds, exemplar) for exemplar in exemplars]
    return int(np.argmin(distances)), min(distances)


def exemplar_spacing(exemplars: Sequence[np.ndarray], scenes: Sequence[str], num_frames: int) -> float | None:
    """Return the distance of an exemplar from the nearest exemplar of another scene, the median over
    exemplars.

    Each window of `num_frames`, the length of a video, is compared with the other exemplars as a video would
    be. `scenes`: captions of the exemplars; equal captions are the same scene. Returns None if there are no
    two scenes, or if they look alike (MIN_SPACING).
    """
    distances = []
    for index, exemplar in enumerate(exemplars):
        others = [other for other, scene in zip(exemplars, scenes) if scene != scenes[index]]
        if others:
            firsts = range(max(1, len(exemplar) - num_frames + 1))
            windows = [exemplar[first : first + num_frames] for first in firsts]
            distances.append(np.mean([nearest(window, others)[1] for window in windows]))
    spacing = float(np.median(distances)) if distances else 0.0
    return spacing if spacing >= MIN_SPACING else None


def diversity(videos: Sequence[np.ndarray]) -> float:
    """Return 1 - cosine of the mean frames of videos (f d) of one prompt, averaged over pairs."""
    means = [embeds.mean(axis=0) for embeds in videos]
    means = [mean / max(np.linalg.norm(mean), 1e-12) for mean in means]
    return float(np.mean([1 - one @ other for one, other in combinations(means, 2)]))
