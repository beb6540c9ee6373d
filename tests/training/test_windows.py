"""Training examples: of (seed, role, turn) alone, every clip equally often, windows and captions varying."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.clips import Clip
from training.windows import draw_window, turns
from utils.video import VideoInfo


def make_clips(number: int, num_frames: int = 12, window: int = 4,
               captions: tuple[str, ...] = ("a", "b")) -> list[Clip]:
    return [Clip(Path(f"{index}.mp4"), str(index), captions, VideoInfo(num_frames, 8, 64, 64), (64, 64),
                 tuple(range(num_frames)), window, (), (), 8) for index in range(number)]


def drawn(clips: list[Clip], wanted, role: str = "exemplar", seed: int = 0) -> list[tuple]:
    """Return all that is random in the examples of the wanted turns, their noise included."""
    windows = [draw_window(clips, role, seed, turn) for turn in wanted]
    return [(w.clip.path.name, w.start, w.caption, torch.randn((), generator=w.generator).item())
            for w in windows]


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_every_clip_is_seen_equally_often(number):
    clips = make_clips(number)
    for rounds in (1, 2, 7):
        seen = Counter(name for name, *_ in drawn(clips, range(rounds * number)))
        assert seen == {clip.path.name: rounds for clip in clips}


def test_order_of_clips_changes_from_round_to_round():
    clips = make_clips(6)
    rounds = [tuple(name for name, *_ in drawn(clips, range(6 * r, 6 * r + 6))) for r in range(5)]
    assert len(set(rounds)) > 1


def test_example_depends_on_its_turn_alone():
    clips = make_clips(3)
    together = drawn(clips, range(10))
    assert [drawn(clips, [turn])[0] for turn in reversed(range(10))] == together[::-1]


def test_dropped_captions_are_the_empty_one_and_change_nothing_else():
    clips, turns_ = make_clips(3), range(400)
    plain = [draw_window(clips, "exemplar", 0, turn) for turn in turns_]
    some = [draw_window(clips, "exemplar", 0, turn, caption_dropout_rate=0.2) for turn in turns_]
    dropped = [one.caption == "" for one in some]
    assert 0.15 < sum(dropped) / 400 < 0.25
    for one, other, is_dropped in zip(plain, some, dropped):
        assert (one.clip, one.start) == (other.clip, other.start)
        assert is_dropped or one.caption == other.caption
        assert torch.equal(torch.randn(4, generator=one.generator), torch.randn(4, generator=other.generator))


def test_example_does_not_touch_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    drawn(make_clips(3), range(5))
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_and_role_change_the_examples():
    clips = make_clips(3)
    one, other_seed = drawn(clips, range(8)), drawn(clips, range(8), seed=1)
    other_role = drawn(clips, range(8), role="regularization")
    assert one != other_seed and one != other_role and other_seed != other_role


def test_exemplars_do_not_depend_on_the_other_role():
    # the number of regularization clips, or that there are any, is no argument: roles count their own turns
    exemplars = make_clips(3)
    before = drawn(exemplars, range(12))
    drawn(make_clips(2), range(12), role="regularization")
    assert drawn(exemplars, range(12)) == before
    assert {name for name, *_ in before} == {"0.mp4", "1.mp4", "2.mp4"}


def test_every_window_of_a_clip_is_drawn_and_none_beyond_it():
    clips = make_clips(1, num_frames=9, window=4)
    assert {start for _, start, _, _ in drawn(clips, range(200))} == set(range(6))


def test_every_caption_of_a_clip_is_drawn():
    clips = make_clips(1, captions=("a", "b", "c"))
    assert {caption for _, _, caption, _ in drawn(clips, range(60))} == {"a", "b", "c"}


def test_clip_of_one_window_is_drawn_whole():
    assert {start for _, start, _, _ in drawn(make_clips(2, num_frames=4, window=4), range(10))} == {0}


def test_noise_differs_between_turns():
    noise = [value for *_, value in drawn(make_clips(1, num_frames=4, window=4, captions=("a",)), range(50))]
    assert len(set(noise)) == 50


@pytest.mark.parametrize("num_ranks, num_micro_steps, batch_size",
                         [(1, 1, 4), (1, 4, 1), (4, 1, 1), (2, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_global_batch_is_the_same_however_it_is_split(num_ranks, num_micro_steps, batch_size):
    for step in range(5):
        batch = [turn for micro_step in range(num_micro_steps) for rank in range(num_ranks)
                 for turn in turns(step, micro_step, num_micro_steps, rank, num_ranks, batch_size)]
        assert sorted(batch) == list(range(4 * step, 4 * step + 4))


def test_all_shifts_of_a_clip_are_drawn_equally_often():
    clips = [replace(clip, shifts=(0.0, 0.08, -0.02)) for clip in make_clips(2)]
    seen = Counter((window.clip.path.name, window.shift)
                   for window in (draw_window(clips, "exemplar", 0, turn) for turn in range(600)))
    assert len(seen) == 6 and min(seen.values()) > 70


def test_without_shifts_a_run_is_what_it_was_before_there_were_any():
    """The values are those of commit 84d5671, which knew no shifts."""
    assert drawn(make_clips(3), range(3)) == [("1.mp4", 2, "b", -0.7738201022148132),
                                              ("0.mp4", 1, "a", 0.5630863308906555),
                                              ("2.mp4", 4, "b", -0.7326657176017761)]
