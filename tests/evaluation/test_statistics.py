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


@pytest.mark.parametrize("num_prompts, num_seeds", [(3, 4), (8, 7), (20, 2)])
@pytest.mark.parametrize("is_share", [False, True])
def test_interval_of_several_seeds_a_prompt_contains_the_truth(num_prompts, num_seeds, is_share):
    """Prompts differ: some are easy, some hard. Videos of one prompt are alike."""
    rng = np.random.default_rng(0)
    prompts, hits = np.arange(num_prompts).repeat(num_seeds), []
    for trial in range(200):
        truths = rng.beta(3, 2, num_prompts).repeat(num_seeds)      # 0.6 on average
        values = rng.random(len(truths)) < truths if is_share else truths + rng.normal(0, 0.05, len(truths))
        found = estimate(values, trial, is_share, prompts=prompts.tolist())
        hits.append(found.low <= 0.6 <= found.high)
    assert 0.9 <= np.mean(hits) <= 0.99


@pytest.mark.parametrize("num", [2, 4, 5, 6, 30])
@pytest.mark.parametrize("is_share", [False, True])
def test_prompts_with_one_seed_each_change_nothing(num, is_share):
    values = np.random.default_rng(num).random(num)
    values = (values < 0.5).tolist() if is_share else values.tolist()
    assert estimate(values, 3, is_share, (0, 1), prompts=list(range(num))) == estimate(
        values, 3, is_share, (0, 1))


def test_mean_is_of_the_videos_and_the_prompts_are_counted():
    found = estimate([0.1, 0.5, 0.9], prompts=["cat", "robot", "cat"])
    assert (found.mean, found.num, found.num_prompts) == (0.5, 3, 2)
    assert found.low < 0.1     # means of two prompts, 0.5 and 0.5, agree by chance


@pytest.mark.parametrize("num_prompts", [4, 12])
def test_copies_of_the_videos_do_not_narrow_the_interval(num_prompts):
    values, prompts = np.random.default_rng(1).random(num_prompts).tolist(), list(range(num_prompts))
    once, thrice = estimate(values, prompts=prompts), estimate(values * 3, prompts=prompts * 3)
    assert thrice.interval == pytest.approx(once.interval)
    assert (once.num, thrice.num, thrice.num_prompts) == (num_prompts, 3 * num_prompts, num_prompts)


def test_unanimous_share_counts_prompts():
    found = estimate([0] * 16, is_share=True, prompts=[0, 1, 2, 3] * 4)
    assert (found.low, found.high) == (0.0, pytest.approx(1 - 0.025 ** 0.25))


def test_one_prompt_with_several_seeds_has_the_interval_of_its_seeds():
    alone, values = estimate([0.2, 0.4, 0.6]), estimate([0.2, 0.4, 0.6], prompts=["cat"] * 3)
    assert values.interval == alone.interval and values.num_prompts == 1 and values.num_independent == 3
    assert estimate([1] * 9, is_share=True, prompts=["cat"] * 9).low == estimate([1] * 9, is_share=True).low


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


@pytest.mark.parametrize("value, low, high", [(0, -0.206, 0.206), (1, 1 - 0.412, 1), (-1, -1, -1 + 0.412)])
def test_difference_of_shares_that_is_always_the_same_is_not_taken_for_certain(value, low, high):
    found = estimate([value] * 16, is_share=True, limits=(-1, 1))
    assert found.interval == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_share_of_few_values_is_a_share():
    found = estimate([0, 1, 1], is_share=True)
    assert (found.low, found.high) == (0, 1)
