"""Which windows are proposed, and why others are not."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from preparation.analysis import analyse
from preparation.cropping import box_of, is_too_small
from preparation.shots import find_shots, find_stretches
from preparation.windows import Wanted, choose, clock, find_windows
from tests.preparation.films import film, scene

WANTED = Wanted(seconds=1, fps=24, window=8, size=(64, 64), use_bucketing=True)


@pytest.mark.parametrize("seconds, said", [
    (0, "0:00.00"), (62.5, "1:02.50"), (59.994, "0:59.99"), (59.996, "1:00.00"), (119.996, "2:00.00")])
def test_a_minute_has_no_sixtieth_second(seconds, said):
    assert clock(seconds) == said


@pytest.fixture
def windows_of(tmp_path):
    def look(name, *parts, fps=24, wanted=WANTED):
        analysis = analyse(film(tmp_path / name, *parts, fps=fps), tmp_path / "cache")
        return find_windows(analysis, find_stretches(analysis, find_shots(analysis))[0], wanted)

    return look


def noisy(frames, seed=0):
    noise = np.random.default_rng(seed).normal(0, 2, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def test_moving_subject_scores_above_a_shaking_camera(windows_of):
    still = scene(1, 1, (200, 136))[0]
    x, y = 2 * np.random.default_rng(0).integers(0, 4, (2, 30))
    shaking = np.stack([still[b:b + 128, a:a + 192] for a, b in zip(x, y, strict=True)])
    (moves,), _ = windows_of("moves.mp4", scene(30, 1, speed=3))
    (shakes,), _ = windows_of("shakes.mp4", shaking)
    assert moves.score > 2 * shakes.score


def test_flicker_is_no_movement(windows_of):
    picture = np.repeat(scene(1, 1).astype(np.float32), 30, axis=0)
    flicker = picture * np.random.default_rng(0).uniform(0.7, 1, 30)[:, None, None, None]
    windows, spans = windows_of("flicker.mp4", noisy(flicker))
    (steady,), _ = windows_of("moves.mp4", scene(30, 1))
    assert all(window.score < steady.score / 3 for window in windows)


def test_windows_where_nothing_moves_are_left_out(windows_of):
    windows, spans = windows_of("nothing.mp4", noisy(np.repeat(scene(1, 1, (480, 320)), 30, axis=0)))
    assert windows == [] and {span.reason for span in spans} == {"nothing moves"}


def test_blurred_windows_are_left_out(windows_of):
    textured = noisy(scene(60, 1, (320, 240)), 1)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 6) for frame in textured[30:]])
    windows, spans = windows_of("half.mp4", textured[:30], blurred)
    assert [window.span[1] <= 30 for window in windows] == [True]
    assert any(span.reason.startswith("blurred") and span.end > 50 for span in spans)


def test_copy_of_other_size_and_quality_is_nearly_the_same_and_another_take_is_not(windows_of):
    original = scene(40, 1, (192, 128))
    copy = np.stack([cv2.resize(frame, (120, 80), interpolation=cv2.INTER_AREA) for frame in original[3:]])
    take = scene(40, 1, (192, 128))[::-1]
    take = np.roll(take, 0, axis=2)
    take[:, 80:] = np.maximum(take[:, 80:], scene(40, 2, (192, 128))[:, 48:96])
    found = [window for name, frames in (("a.mp4", original), ("b.mp4", copy), ("c.mp4", take))
             for window in windows_of(name, frames)[0]]
    chosen, left = choose(found, 6)
    assert {window.analysis.path.name for window in chosen} == {"a.mp4", "c.mp4"} or \
        {window.analysis.path.name for window in chosen} == {"b.mp4", "c.mp4"}
    assert [window.reason.startswith("nearly the same as") for window in left] == [True]


def test_clips_are_spread_over_files(windows_of):
    fast = windows_of("fast.mp4", scene(120, 1, speed=3))[0]
    slow = windows_of("slow.mp4", scene(30, 9, speed=2))[0]
    chosen, left = choose(fast + slow, 2)
    assert {window.analysis.path.name for window in chosen} == {"fast.mp4", "slow.mp4"}
    assert all(window.reason for window in chosen + left)


def test_slower_footage_than_trained_is_named_with_the_rate_that_would_use_it(windows_of):
    windows, spans = windows_of("slow.mp4", np.repeat(scene(30, 1, speed=5), 3, axis=0), fps=30)
    assert windows == [] and "--fps 10 would use it" in spans[0].reason


def test_windows_play_at_the_rate_of_their_own_frames(windows_of):
    moving = scene(90, 1, speed=3)
    bright, dim = moving[:60], np.repeat(moving[60:], 2, axis=0)   # a phone in dim light halves its rate
    windows, spans = windows_of("dim.mp4", bright, dim, fps=30)
    assert {window.fps for window in windows} == {30} and all(window.span[1] <= 62 for window in windows)
    assert ["--fps 15 would use it" in span.reason for span in spans] == [True] and spans[0].end == 119
    windows, spans = windows_of("dim.mp4", bright, dim, fps=30, wanted=replace(WANTED, fps=15))
    assert {(window.fps, window.span[0] < 60) for window in windows} == {(15, True), (15, False)}
    assert {(window.span[0] < 60, *np.diff(window.frames)) for window in windows} == {
        (True, *[2] * 14), (False, *[2] * 14)}


def test_60_frames_a_second_become_30(windows_of):
    (window, *_), _ = windows_of("fast.mp4", scene(70, 1, speed=1), fps=60)
    assert window.fps == 30 and len(window.frames) == 30
    assert set(np.diff(window.frames)) == {2}


def test_short_shot_is_named_with_its_length(windows_of):
    windows, spans = windows_of("short.mp4", scene(6))
    assert windows == [] and spans[0].reason == "lasts 0.25 s, and training needs 0.33 s in one shot"


@pytest.mark.parametrize("crop", ["square", "aspect"])
def test_crop_holds_what_moves_and_keeps_its_shape(windows_of, crop):
    frames = np.repeat(scene(1, 1, (320, 180)), 30, axis=0)
    for index, frame in enumerate(frames):
        frame[100:120, 200 + index:220 + index] = 255
    (window,), _ = windows_of("small.mp4", frames)
    (left, top, width, height), size = box_of(window, crop, WANTED)
    assert left <= 200 and left + width >= 249 and top <= 100 and top + height >= 120
    assert width % 2 == height % 2 == 0 and size == (width, height)
    assert 64 <= width < 200 and not is_too_small(width, height, WANTED)
    assert abs(width / height - (1 if crop == "square" else 16 / 9)) < 0.05


def test_whole_picture_becomes_even_and_is_not_enlarged(windows_of):
    (window,), _ = windows_of("whole.mp4", scene(30, 1, (194, 130)))
    assert box_of(window, None, WANTED) == ((0, 0, 194, 130), (194, 130))
