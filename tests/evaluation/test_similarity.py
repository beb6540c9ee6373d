"""evaluation/similarity.py: distances of videos as sequences of embeddings."""

import numpy as np
import pytest

from evaluation.similarity import (
    diversity,
    exemplar_spacing,
    frame_similarity,
    nearest,
    sequence_distance,
    temporal_consistency,
    text_alignment,
)


def embeds(num: int, seed: int, width: int = 8) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(num, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_any_window_of_a_clip_is_a_copy_of_it_and_the_other_way_round():
    clip = embeds(16, 0)
    for window in (clip, clip[:5], clip[4:12], clip[15:]):
        assert sequence_distance(window, clip) == pytest.approx(0, abs=1e-12)
        assert sequence_distance(clip, window) == pytest.approx(0, abs=1e-12)


def test_order_of_frames_counts():
    clip = embeds(16, 0)
    assert sequence_distance(clip[7::-1], clip) > 0.5


def test_nearest_exemplar_is_found():
    exemplars = [embeds(16, seed) for seed in range(4)]
    index, distance = nearest(exemplars[2][3:11], exemplars)
    assert index == 2 and distance == pytest.approx(0, abs=1e-12)


def test_spacing_is_that_of_other_scenes():
    one, other = embeds(8, 0), embeds(8, 1)
    apart = sequence_distance(one, other)
    assert exemplar_spacing([one, other], ["a", "b"], 8) == pytest.approx(apart)
    assert exemplar_spacing([one, one, other], ["a", "a", "b"], 8) == pytest.approx(apart)
    assert exemplar_spacing([one, one], ["a", "a"], 8) is None


def facing(*degrees: float) -> np.ndarray:
    """Return frames (f 2) whose embeddings point in these directions."""
    return np.stack([(np.cos(angle), np.sin(angle)) for angle in np.radians(degrees)])


def test_spacing_is_the_median_so_that_one_odd_exemplar_does_not_set_it():
    exemplars = [facing(0), facing(20), facing(170)]   # from the nearest of another scene: 20, 20 and 150
    assert exemplar_spacing(exemplars, ["a", "b", "c"], 1) == pytest.approx(1 - np.cos(np.radians(20)))


def test_spacing_of_an_exemplar_is_the_mean_over_its_windows():
    exemplars = [facing(0, 0, 0, 90), facing(0, 0)]    # windows of two frames: 0, 0 and 0.5; 0
    assert exemplar_spacing(exemplars, ["a", "b"], 2) == pytest.approx(0.5 / 3 / 2)


def test_exemplars_that_are_nearly_the_same_have_no_spacing():
    one = embeds(8, 0).astype(np.float32)
    for noise in (0, 1e-6, 1e-2):   # the last is as much as encoding a clip again
        other = one + noise * embeds(8, 1).astype(np.float32)
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        assert exemplar_spacing([one, other], ["a", "b"], 8) is None


def test_averages_of_cosines():
    still = embeds(1, 0).repeat(4, axis=0)
    assert temporal_consistency(still) == pytest.approx(1) and temporal_consistency(still[:1]) is None
    assert text_alignment(still, -still[0]) == pytest.approx(-1)
    assert frame_similarity(still, np.concatenate([still, -still])) == pytest.approx(1)
    assert diversity([still, still]) == pytest.approx(0) and diversity([still, -still]) == pytest.approx(2)
