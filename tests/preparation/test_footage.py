"""Finding footage, reading it in one pass, cutting it exactly to the frame."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from preparation.footage import Cut, find_footage, small_frames, write_cuts
from tests.preparation.films import film, scene
from utils.errors import UserError
from utils.files import NotWritten
from utils.video import probe, read_frames, video_metadata


def numbered(num_frames: int, width: int = 160, height: int = 64) -> np.ndarray:
    """Frames that show their number: eight fields across, black or white, are its bits."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for index, frame in enumerate(frames):
        for bit in range(8):
            frame[:, bit * width // 8:(bit + 1) * width // 8] = 230 * (index >> bit & 1)
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """Return what the frames show, RGB (f h w c) or luma (f h w)."""
    fields = frames.reshape(len(frames), frames.shape[1], 8, -1).mean((1, 3)) > 115
    return (fields @ (1 << np.arange(8))).tolist()


def cut_of(path, folder, frames, fps, box=(0, 0, 160, 64), size=(160, 64)):
    recipe = {"source": "x", "box": list(box)}
    cut = Cut(folder / f"cut{frames[0]}.mp4", tuple(frames), fps, box, size, recipe)
    write_cuts(path, probe(path), [cut])
    return cut


@pytest.mark.parametrize("fps", [24, 29.97, 60])
def test_cuts_are_exact_to_the_frame(tmp_path, fps):
    path = film(tmp_path / "film.mp4", numbered(120), fps=fps)
    assert numbers(np.stack(list(small_frames(path, probe(path), [])))[:, :64]) == list(range(120))
    cut = cut_of(path, tmp_path, range(37, 95, 2), fps / 2)
    assert numbers(read_frames(cut.path, range(29))) == list(range(37, 95, 2))
    assert probe(cut.path).fps == pytest.approx(fps / 2, rel=1e-4) and video_metadata(cut.path) == cut.recipe


def test_irregular_frames_are_cut_as_listed(tmp_path):
    path = film(tmp_path / "film.mp4", numbered(60), fps=30)
    frames = [index for index in range(5, 55) if index % 5]
    cut = cut_of(path, tmp_path, frames, 24)
    assert numbers(read_frames(cut.path, range(len(frames)))) == frames and probe(cut.path).fps == 24


def test_varying_frame_rate_keeps_its_times(tmp_path):
    steady, varying = film(tmp_path / "steady.mp4", numbered(90), fps=30), tmp_path / "varying.mp4"
    # no frames from 1 s to 2 s but one
    _ffmpeg("-i", steady, "-vf", "select='lt(n,30)+eq(n,45)+gte(n,60)'", "-fps_mode", "vfr", varying)
    seen = numbers(np.stack(list(small_frames(varying, probe(steady), [])))[:, :64])
    assert seen[:30] == list(range(30)) and seen[-30:] == list(range(60, 90)) and len(seen) == 90


@pytest.mark.parametrize("seconds, name", [(0.4, "sounding.mp4"), (0.0167, "sounding.mkv")])
def test_frames_count_from_the_first_picture_where_sound_begins_before_it(tmp_path, seconds, name):
    silent, path = film(tmp_path / "film.mp4", numbered(90), fps=30), tmp_path / name
    _ffmpeg("-itsoffset", seconds, "-i", silent, "-f", "lavfi", "-i", "sine=d=4", "-c:v", "copy", path)
    assert numbers(np.stack(list(small_frames(path, probe(path), [])))[:, :64]) == list(range(90))
    cut = cut_of(path, tmp_path, range(20, 44), 30)
    assert numbers(read_frames(cut.path, range(24))) == list(range(20, 44))


def test_clip_has_colour_tags_and_no_audio_and_forgets_where_it_was(tmp_path):
    path, sounding = film(tmp_path / "film.mp4", scene(30, size=(96, 64))), tmp_path / "sounding.mp4"
    _ffmpeg("-i", path, "-f", "lavfi", "-i", "sine=d=1", "-metadata", "location=+52.5-013.4/", "-c:v", "copy",
            sounding)
    cut = cut_of(sounding, tmp_path, range(24), 24, (0, 0, 96, 64), (96, 64))
    said = _ffmpeg("-i", cut.path, "-f", "null", "-").stderr.decode()
    assert "yuv420p(tv, bt709" in said and "h264" in said
    assert "Audio" not in said and "52.5" not in said


def test_colours_and_crop_stay(tmp_path):
    path = film(tmp_path / "film.mp4", scene(12, size=(96, 64)))
    cut = cut_of(path, tmp_path, range(12), 24, (8, 16, 64, 32), (64, 32))
    wanted = read_frames(path, range(12))[:, 16:48, 8:72].astype(int)
    apart = read_frames(cut.path, range(12)) - wanted
    assert np.abs(apart).mean() < 4 and np.abs(apart.mean((0, 1, 2))).max() < 1


@pytest.mark.parametrize("name, options, size", [
    ("wide.mp4", ("-vf", "setsar=4/3"), (128, 64)),
    ("high.mp4", ("-vf", "setsar=1/2"), (96, 128)),
    ("interlaced.ts", ("-vf", "tinterlace=interleave_top", "-c:v", "mpeg2video", "-q:v", 1, "-flags",
                       "+ildct+ilme"), (96, 64)),
    ("untagged.mp4", ("-vf", "scale=1280:720:out_color_matrix=bt709:flags=neighbor,format=yuv420p,"
                      "setparams=colorspace=unknown", "-colorspace", "unknown"), (1280, 720)),
    ("two.mkv", ("-filter_complex", "[0:v]vflip[o]", "-map", "0:v", "-map", "[o]", "-disposition:0", 0,
                 "-disposition:1", "default"), (96, 64)),
])
def test_clips_show_what_the_film_reader_shows(tmp_path, name, options, size):
    path, (width, height) = tmp_path / name, (size[0] // 2, size[1] // 2)
    _ffmpeg("-i", film(tmp_path / "film.mp4", scene(40, size=(96, 64), speed=6)), *options, path)
    info, frames = probe(path), read_frames(path, range(2, 14))
    assert (info.width, info.height) == size
    cut = cut_of(path, tmp_path, range(2, 14), info.fps, (width, 0, width, height), (width, height))
    apart = read_frames(cut.path, range(12)) - frames[:, :height, width:].astype(int)
    assert np.abs(apart).mean() < 5 and np.abs(apart.mean((0, 1, 2))).max() < 1.5
    assert "interlaced" not in " ".join(probe(cut.path).notes)
    if name == "two.mkv":
        luma = np.stack(list(small_frames(path, info, [])))[2:14, :64]
        assert np.corrcoef(luma.ravel(), frames.mean(3).ravel())[0, 1] > 0.9


def test_full_disk_and_a_file_that_cannot_be_cut_are_told_apart(tmp_path, full_disk):
    path = film(tmp_path / "film.mp4", scene(30))
    with full_disk(), pytest.raises(NotWritten, match="free there"):
        cut_of(path, tmp_path, range(24), 24)
    with pytest.raises(UserError, match="could not be cut: frames are missing. Re-encode it") as caught:
        cut_of(path, tmp_path, range(20, 44), 24)
    assert not isinstance(caught.value, NotWritten) and "free there" not in str(caught.value)
    with pytest.raises(UserError, match="could not be cut: frames are missing"):
        cut_of(path, tmp_path, range(40, 44), 24)
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


def test_what_is_no_footage_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        find_footage([tmp_path / "none.mp4", tmp_path / "empty", tmp_path / "out"], tmp_path / "out")
    missing, empty, itself = caught.value.problems
    assert "does not exist" in missing and "holds no video" in empty and "is the output folder" in itself


def test_clips_that_were_cut_before_are_no_footage_unless_named(tmp_path):
    for name in ("a/film.mp4", "a/clips/one.mp4", "a/clips/.prepared/dropped/two.mp4", "a/out/three.mp4",
                 "a/out/.prepared/stills.json", "a/clips/more/four.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    said = []
    assert find_footage([tmp_path / "a"], tmp_path / "a/out", said.append) == [tmp_path / "a/film.mp4"]
    (line,) = said
    assert line.startswith(f"{tmp_path / 'a/clips'}: is left out")
    assert find_footage([tmp_path / "a", tmp_path / "a/clips"], tmp_path / "a/out", said.append) == [
        tmp_path / "a/film.mp4", tmp_path / "a/clips/more/four.mp4", tmp_path / "a/clips/one.mp4"]
    assert len(said) == 1


def test_folders_are_searched_but_for_the_output(tmp_path):
    for name in ("a/one.MOV", "a/.hidden.mp4", "a/b/two.mp4", "a/out/three.mp4", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_footage([tmp_path / "a", tmp_path / "a/b/two.mp4"], tmp_path / "a/out")
    assert [path.name for path in found] == ["two.mp4", "one.MOV"]


def _ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
