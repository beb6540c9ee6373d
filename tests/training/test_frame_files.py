"""--dry-run --frames DIR: the files are the frames that would be trained on."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_clip
from tests.filmed import ffmpeg, numbers_on, write_source
from training.clips import find_clips
from training.config import Config, TrainData
from training.frame_files import write_frames
from utils.errors import UserError
from utils.video import read_frames


@pytest.fixture
def clips(tmp_path):
    """A numbered clip of 24 fps in two folders, sampled at 8."""
    source = write_source(tmp_path / "source.mkv", 31)
    (tmp_path / "clips").mkdir()
    ffmpeg("-i", source, tmp_path / "clips" / "spin.mp4")
    (tmp_path / "clips" / "spin.txt").write_text("a V* spin")
    shutil.copytree(tmp_path / "clips", tmp_path / "others")
    data = TrainData(path=str(tmp_path / "clips"), class_path=str(tmp_path / "others"), width=64, height=48,
                     n_sample_frames=4, fps=8)
    return find_clips(Config(train_data=data), 16)


def test_frames_are_those_trained_on(clips, tmp_path):
    exemplars, _ = clips
    write_frames(exemplars, [], tmp_path / "frames")
    files = sorted((tmp_path / "frames" / "spin.mp4").iterdir())
    assert [file.name for file in files] == [f"{k:05d}_{k / 8:.3f}.png" for k in range(11)]
    pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal(pictures, read_frames(exemplars[0].path, exemplars[0].frames, exemplars[0].size))
    assert numbers_on(pictures) == list(range(0, 31, 3))
    height = 156 * pictures.shape[1] // pictures.shape[2]
    assert Image.open(tmp_path / "frames" / "spin.mp4.png").size == (1280, 2 * (height + 4))


def test_clips_of_one_name_do_not_collide(clips, tmp_path):
    for _ in range(2):   # the second time replaces the files of the first
        write_frames(*clips, tmp_path / "frames")
        folders = [path.relative_to(tmp_path / "frames") for path in (tmp_path / "frames").glob("**/*.mp4")]
        assert sorted(folder.as_posix() for folder in folders) == ["regularization/spin.mp4", "spin.mp4"]


def test_clips_with_the_longest_names_are_written(clips, tmp_path):
    clip, = clips[0]
    longest = [clip.path.with_name(f"{'舞' * 83}{end}.mp4") for end in "ab"]   # 254 bytes
    for path in longest:
        shutil.copy(clip.path, path)
    write_frames([replace(clip, path=path, shifts=(-0.1, 0.1)) for path in longest], [], tmp_path / "frames")
    folders = sorted(path.name for path in (tmp_path / "frames").iterdir() if path.is_dir())
    assert [name.lstrip("舞") for name in folders] == [" (2).mp4", ".mp4"]
    assert len(list((tmp_path / "frames").glob("*.shifts.png"))) == 2


def test_parts_of_one_file_are_all_written(clips, tmp_path):
    """A JSON data set names a clip once for each frame_index that has captions."""
    (clip,), _ = clips
    parts = [replace(clip, frames=clip.frames[:5]), replace(clip, frames=clip.frames[5:])]
    write_frames(parts, [], tmp_path / "frames")
    written = [list((tmp_path / "frames" / name).iterdir()) for name in ("spin.mp4", "spin (2).mp4")]
    assert [len(files) for files in written] == [5, 6]


def test_nothing_else_is_replaced(clips, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "spin.mp4.png").write_text("a picture of somebody's")
    with pytest.raises(UserError, match=r"--frames: .*spin.mp4.png is there already"):
        write_frames(*clips, tmp_path / "frames")
    before = (tmp_path / "clips" / "spin.mp4").read_bytes()
    with pytest.raises(UserError, match=r"--frames: .*spin.mp4 is there already, and does not hold"):
        write_frames(*clips, tmp_path / "clips")
    assert (tmp_path / "clips" / "spin.mp4").read_bytes() == before


def test_dry_run_writes_frames(write_config, run_main, tmp_path):
    code, out, err = run_main("train_model", "--config", write_config(), "--dry-run",
                              "--frames", tmp_path / "frames")
    assert code == 0 and out.endswith(f"frames: {tmp_path / 'frames'}\n"), err
    assert len(list((tmp_path / "frames" / "spin_1.mp4").iterdir())) == 14


def test_frames_without_a_dry_run_is_an_error(write_config, run_main, tmp_path):
    code, out, err = run_main("train_model", "--config", write_config(), "--frames", tmp_path / "frames")
    assert (code, out, err) == (
        2, "", "--frames writes what would be trained on, without training. Add --dry-run.\n")


def test_long_clip_has_a_sheet_that_can_be_looked_at(tmp_path):
    write_clip(tmp_path / "clips" / "a.mp4", 150, 32, 32, caption="V*")
    data = TrainData(path=str(tmp_path / "clips"), width=32, height=32, n_sample_frames=4, fps=8)
    write_frames(*find_clips(Config(train_data=data), 16), tmp_path / "frames")
    assert Image.open(tmp_path / "frames" / "a.mp4.png").size == (1280, 12 * 160)


def test_shifts_have_a_sheet_of_their_own(clips, tmp_path):
    (clip,), _ = clips
    write_frames([replace(clip, shifts=(0.0, 0.3))], [], tmp_path)
    sheet = np.asarray(Image.open(tmp_path / "spin.mp4.shifts.png"))
    plain, moved = sheet[20:110, :156], sheet[20:110, 160:316]
    assert sheet.shape[1] == 1280 and (plain != moved).any() and not sheet[:, 320:].any()
    write_frames([clip], [], tmp_path / "without")
    assert not (tmp_path / "without" / "spin.mp4.shifts.png").exists()
