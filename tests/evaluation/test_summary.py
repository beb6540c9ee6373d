"""evaluation/summary.py and score_report.py: which step to use, and the plot and table that say so."""

import pytest

from evaluation.score_report import difference_table, plot_steps, score_table
from evaluation.scores import MEASURES
from evaluation.statistics import Estimate, estimate
from evaluation.summary import GroupScores, choose_step


def group(step: int | None, motion: float, text: float = 0.3, copies: float = 0.0, spread: float = 0.05,
          num: int = 16, num_seeds: int = 1) -> GroupScores:
    measures = {measure.key: estimate([]) for measure in MEASURES}
    if num:
        counts = num, num // num_seeds
        measures["motion_probability"] = Estimate(motion, motion - spread, motion + spread, *counts)
        measures["text_alignment"] = Estimate(text, text - 0.02, text + 0.02, *counts)
        measures["copies"] = Estimate(copies, copies, copies, *counts)
    return GroupScores(f"step {step}", step, num, measures)


@pytest.mark.parametrize("groups, step, words", [
    ([group(0, 0.1), group(50, 0.5), group(100, 0.9)], 100, "is the best"),
    ([group(0, 0.1), group(50, 0.88), group(100, 0.9)], 50, "of the best, 0.90 (0.85 to 0.95) at step 100"),
    ([group(0, 0.1), group(50, 0.88, copies=0.5), group(100, 0.9)], 100, "0 of 16 are copies"),
    ([group(0, 0.1), group(50, 0.88, text=0.1), group(100, 0.9)], 100, "text alignment 0.30"),
    ([group(50, 0.88), group(100, 0.9)], 50, "earliest"),
    ([group(0, 0.1, spread=1), group(50, 0.2), group(100, 0.9, spread=1)], None, "no step shows the motion"),
    ([group(0, 0.1, spread=1, num=3), group(50, 0.2, num=3), group(100, 0.9, spread=1, num=3)], 100,
     "is the best"),   # an interval of three values is too wide to choose by
    ([group(0, 0.1, spread=1, num_seeds=4), group(50, 0.2, num_seeds=4),
      group(100, 0.9, spread=1, num_seeds=4)], 100, "is the best"),   # so is one of four prompts
    ([group(0, 0.5), group(50, 0.52), group(100, 0.54)], None, "no step shows the motion more than the"),
    ([group(0, 0.5)], None, "no samples of a tuned step"),
    ([group(0, 0.1), group(50, 0, num=0)], None, "no samples of a tuned step"),
])
def test_step_to_use_balances_motion_copies_and_text(groups, step, words):
    chosen, reason = choose_step(groups)
    assert chosen == step and words in reason


def test_table_has_what_was_measured_and_nothing_else():
    table = score_table([group(step, 0.5) for step in (0, 1, 2, 3)])
    assert "0.50 (0.45 to 0.55), 16" in table and "diversity" not in table
    assert max(map(len, table.splitlines())) <= 120


def test_table_counts_the_prompts_where_they_have_several_seeds():
    table = score_table([group(step, 0.5, num_seeds=2) for step in (0, 1, 2)])
    assert "0.50 (0.45 to 0.55), 16/8" in table and table.startswith("mean (95 %), videos/prompts ")
    assert max(map(len, table.splitlines())) <= 120 and "/" not in score_table([group(0, 0.5)])


def test_differences_have_three_digits_and_fit_on_the_terminal():
    table = difference_table([group(step, -0.123, spread=0.1, num_seeds=2) for step in (0, 100, 200)])
    assert "-0.123 (-0.223 to -0.023), 16/8" in table and max(map(len, table.splitlines())) <= 120
    assert table.startswith("difference (95 %), pairs/prompts  step 0") and "better" not in table


def test_plot_is_a_png_with_a_single_step_and_with_values_missing(tmp_path):
    for groups in ([group(5, 0.5)], [group(0, 0.5, num=0), group(5, 0.5)]):
        plot_steps(tmp_path / "scores.png", groups, None, "a title")
        assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
