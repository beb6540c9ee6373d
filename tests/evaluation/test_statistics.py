"""evaluation/statistics.py: intervals that hold what they promise."""

import numpy as np
import pytest

from evaluation.statistics import LEVEL, estimate


@pytest.mark.parametrize("num", [2, 3, 4, 5, 6, 12, 40])
def test_interval_contains_the_truth_as_often_as_it_says(num):
    rng = np.random.default_rng(0)
    found = [estimate(rng.normal(0.4, 0.2, num), seed=trial) for trial in range(400)]
    hits = [one.low <= 0.4 <= one.high for one in found]
    assert np.mean(hits) == pytest.approx(LEVEL, abs=0.035)


def test_same_seed_same_interval_and_the_width_of_theory():
    values = np.random.default_rng(1).normal(0, 1, 100)
    found = estimate(values, seed=3)
    assert found == estimate(values, seed=3) and found.num == 100
    assert found.high - found.low == pytest.approx(2 * 1.98 * values.std() / 10, rel=0.1)


def test_more_videos_narrow_the_interval():
    values = np.random.default_rng(2).random(400)
    few, many = estimate(values[:20]), estimate(values)
    assert many.high - many.low < (few.high - few.low) / 3


@pytest.mark.parametrize("value, low, high", [(1.0, 0.794, 1.0), (0.0, 0.0, 0.206)])
def test_unanimous_share_is_not_taken_for_certain(value, low, high):
    assert estimate([value] * 16).low == value   # a distance that is 0 throughout is 0
    found = estimate([value] * 16, is_share=True)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert (estimate([0.5]).mean, estimate([0.5]).low) == (0.5, None)
    assert (estimate([]).mean, estimate([]).num) == (None, 0)


@pytest.mark.parametrize("values, low, high", [
    ([0.5, 0.7], 0.0, 1.0), ([0.7, 0.7], 0.7, 0.7), ([0.6, 0.7, 0.8], 0.7 - 0.2484, 0.7 + 0.2484)])
def test_interval_of_few_values_is_students_and_ends_where_the_measure_does(values, low, high):
    found = estimate(values, limits=(0, 1))
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_share_of_few_values_is_a_share():
    found = estimate([0, 1, 1], is_share=True)
    assert (found.low, found.high) == (0, 1)
