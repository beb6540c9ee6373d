"""Cuts, black, fades, stills and repeated pictures of drawn films."""

import numpy as np
import pytest

from preparation.analysis import analyse
from preparation.shots import find_shots, find_stretches
from tests.preparation.films import black, film, scene


def looked_at(tmp_path, *parts, fps=24):
    analysis = analyse(film(tmp_path / "film.mp4", *parts, fps=fps), tmp_path / "cache")
    shots = find_shots(analysis)
    return analysis, shots, *find_stretches(analysis, shots)


def test_shots_with_black_between_are_cut_at_the_frame(tmp_path):
    _, shots, _, spans = looked_at(tmp_path, scene(50, 1), black(20), scene(40, 2), black(5), scene(45, 3))
    assert shots == [(0, 50), (70, 110), (115, 160)]
    assert [(span.start, span.end) for span in spans] == [(50, 70), (110, 115)]
    assert {span.reason for span in spans} == {"black, or fading to or from black"}


def test_shots_without_black_between_are_cut_at_the_frame(tmp_path):
    _, shots, stretches, _ = looked_at(tmp_path, scene(40, 1), scene(40, 5), scene(40, 8))
    assert shots == [(0, 40), (40, 80), (80, 120)]
    assert [stretch.frames[0] for stretch in stretches] == [0, 41, 81]   # traces of another shot stay out


def test_fades_are_left_out_and_the_bright_part_stays(tmp_path):
    shown = scene(60, 1).astype(np.float32)
    shown[-20:] *= np.linspace(0.95, 0, 20)[:, None, None, None]
    _, shots, _, _ = looked_at(tmp_path, shown.astype(np.uint8), black(10), scene(40, 2))
    (first, second) = shots
    assert 38 <= first[1] <= 44 and second == (70, 110)


def test_film_of_10_frames_a_second_in_a_file_of_30_lists_its_own_frames(tmp_path):
    _, shots, stretches, _ = looked_at(tmp_path, np.repeat(scene(30, 1, speed=5), 3, axis=0), fps=30)
    assert shots == [(0, 90)]
    assert stretches[0].fps == 10
    assert stretches[0].frames.tolist() == list(range(0, 90, 3))


@pytest.mark.parametrize("first, second", [(1, 2), (2, 1), (1, 3), (2, 3)])
def test_stretch_ends_where_pictures_begin_to_come_at_another_rate(tmp_path, first, second):
    moving = scene(90 // first + 90 // second, 1, speed=3)
    parts = np.split(moving, [90 // first])
    parts = [np.repeat(part, times, axis=0) for part, times in zip(parts, (first, second))]
    _, shots, stretches, _ = looked_at(tmp_path, *parts, fps=30)
    assert shots == [(0, 180)] and [stretch.fps for stretch in stretches] == [30 / first, 30 / second]
    assert abs(stretches[1].frames[0] - 90) <= 3


def test_rate_that_dips_for_a_moment_or_a_pause_ends_no_stretch(tmp_path):
    moving = scene(120, 1)
    for times in (np.repeat((1, 2, 1), (60, 4, 56)), np.repeat((1, 7, 1), (60, 1, 59))):
        _, _, (stretch,), _ = looked_at(tmp_path, np.repeat(moving, times, axis=0), fps=30)
        assert stretch.frames[0] == 0 and stretch.frames[-1] == sum(times) - 1


def test_still_part_is_left_out(tmp_path):
    moving, after = scene(40, 1), scene(70, 1)[40:]
    still = np.repeat(moving[-1:], 30, axis=0)
    _, _, stretches, spans = looked_at(tmp_path, moving, still, after)
    (span,) = spans
    # an encoder goes on refining a still picture for some frames
    assert 39 <= span.start <= 46 and (span.end, span.reason) == (70, "a still picture")
    assert [(stretch.frames[0], stretch.frames[-1]) for stretch in stretches] == [(0, span.start), (70, 99)]


def test_file_is_measured_once(tmp_path):
    path = film(tmp_path / "film.mp4", scene(20))
    first = analyse(path, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    stamp = kept.stat().st_mtime_ns
    moved = path.rename(tmp_path / "renamed.mp4")
    again = analyse(moved, tmp_path / "cache")
    assert kept.stat().st_mtime_ns == stamp
    assert np.array_equal(again.changes, first.changes) and again.stills == first.stills
