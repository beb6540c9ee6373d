"""Videos in and out: real files of every kind that is promised, whole, damaged and not videos at all."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_frames, write_clip
from utils.containers import is_cut_off
from utils.errors import UserError
from utils.video import (
    VideoInfo,
    iter_frames,
    metadata_in,
    probe,
    read_frames,
    resize_and_crop,
    trained_size,
    video_metadata,
    write_video,
)

CODECS = {".mov": ["-c", "copy"], ".mkv": ["-c", "copy"], ".avi": ["-c:v", "mpeg4"],
          ".webm": ["-c:v", "libvpx"], ".gif": []}
TARGETS = [(384, 384), (576, 320), (256, 256), (64, 64)]


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    """One clip of 20 frames, 96x64, in every container."""
    folder = tmp_path_factory.mktemp("clips")
    paths = {".mp4": write_clip(folder / "a.mp4", num_frames=20, width=96, height=64)}
    for suffix, codec in CODECS.items():
        paths[suffix] = folder / f"a{suffix}"
        ffmpeg("-i", paths[".mp4"], *codec, paths[suffix])
    return paths


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm", ".gif"])
def test_every_container_is_read(clips, suffix):
    info = probe(clips[suffix])
    assert (info.num_frames, info.width, info.height) == (20, 96, 64)
    assert info.fps == pytest.approx(8, rel=0.02)   # a GIF counts in hundredths of a second
    frames = read_frames(clips[suffix], range(20))
    assert frames.shape == (20, 64, 96, 3) and frames.dtype == np.uint8
    originals = draw_frames(20, 96, 64).astype(int)
    nearest = [int(np.abs(originals - frame).mean(axis=(1, 2, 3)).argmin()) for frame in frames]
    assert nearest == list(range(20))


def test_chosen_frames_are_those_frames(clips):
    every = read_frames(clips[".mp4"], range(20))
    assert np.array_equal(read_frames(clips[".mp4"], [13, 2, 19]), every[[13, 2, 19]])


def test_pieces_add_up_to_the_whole(clips):
    whole = read_frames(clips[".mp4"], range(20), (48, 32))
    pieces = list(iter_frames(clips[".mp4"], range(20), (48, 32), chunk=7))
    assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm", ".gif"])
def test_truncated_video_is_named(clips, tmp_path, suffix):
    path = tmp_path / f"short{suffix}"
    path.write_bytes(clips[suffix].read_bytes()[:-200])
    with pytest.raises(UserError, match=rf"short\{suffix}: is (cut off|not a picture that can be read)"):
        probe(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm"])
def test_whole_video_is_not_called_cut_off(clips, suffix):
    assert not is_cut_off(clips[suffix])


def test_video_streamed_without_a_length_is_not_called_cut_off(clips, tmp_path):
    path = tmp_path / "live.mkv"
    with open(path, "wb") as file:   # a pipe cannot be rewound to write the length
        process = subprocess.Popen([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(clips[".mp4"]),
                                    "-c", "copy", "-f", "matroska", "pipe:1"], stdout=subprocess.PIPE)
        file.write(process.communicate()[0])
    assert path.read_bytes().find(b"\x18\x53\x80\x67\x01" + b"\xff" * 7) > 0   # a segment of unknown length
    assert not is_cut_off(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm", ".gif", ".png"])
def test_zero_byte_file_is_named(tmp_path, suffix):
    (tmp_path / f"none{suffix}").touch()
    with pytest.raises(UserError, match=rf"none\{suffix}: is empty \(0 bytes\)"):
        probe(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("text", ["not a video", "<!DOCTYPE html><html>404</html>",
                                  "abcdefghijklmnopqrstuvwxyz" * 9])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_text_named_as_a_video_is_named(tmp_path, text, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"text\{suffix}: is not a (video|picture) that can be read"):
        probe(path)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_sound_without_a_picture_is_named(tmp_path, suffix):
    path = tmp_path / f"song{suffix}"
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.5", path)
    with pytest.raises(UserError, match=rf"song\{suffix}: is not a video that can be read"):
        probe(path)


def test_video_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="gone.mp4: cannot be read"):
        probe(tmp_path / "gone.mp4")


def test_damage_inside_a_video_is_named(clips, tmp_path):
    content = bytearray(clips[".mp4"].read_bytes())
    start = content.index(b"mdat")
    content[start + 900 : -100] = b"\x55" * (len(content) - start - 1000)
    (tmp_path / "torn.mp4").write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"torn.mp4: frame \d+ cannot be decoded"):
        probe(tmp_path / "torn.mp4")
        read_frames(tmp_path / "torn.mp4", range(20))


def test_frame_beyond_the_end_is_named(clips):
    with pytest.raises(UserError, match="a.mp4: frame 20 cannot be decoded"):
        read_frames(clips[".mp4"], [20])


@pytest.mark.parametrize("name", ["\U0001f600.mp4", "it's \"quoted\".mp4", "a b, c.mp4", "\u732b.MP4",
                                  "100%.mp4", "-i.mp4"])
def test_awkward_file_names_are_read_and_written(tmp_path, name):
    write_video(tmp_path / name, draw_frames(3, 32, 32), 8, {"prompt": name})
    assert probe(tmp_path / name).num_frames == 3
    assert video_metadata(tmp_path / name) == {"prompt": name}


def test_rotated_video_is_as_displayed(clips, tmp_path):
    ffmpeg("-display_rotation", "90", "-i", clips[".mp4"], "-c", "copy", tmp_path / "phone.mp4")
    info = probe(tmp_path / "phone.mp4")
    assert (info.width, info.height) == (64, 96)
    upright = read_frames(clips[".mp4"], [0])[0].astype(int)
    lying = read_frames(tmp_path / "phone.mp4", [0])[0]
    assert np.abs(np.rot90(upright) - lying).mean() < 2


def test_odd_sizes_are_read(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=65x49:d=1:r=10", "-pix_fmt", "yuv444p", tmp_path / "odd.mp4")
    assert probe(tmp_path / "odd.mp4") == VideoInfo(10, 10.0, 65, 49)
    assert read_frames(tmp_path / "odd.mp4", [0, 9]).shape == (2, 49, 65, 3)


def test_gif_whose_last_frame_is_held_has_its_median_rate(tmp_path):
    frames = [Image.fromarray(frame) for frame in draw_frames(4, 32, 32)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[50, 50, 50, 250])
    assert probe(tmp_path / "a.gif") == VideoInfo(4, 20.0, 32, 32)


def test_picture_is_a_clip_of_one_frame(tmp_path):
    Image.fromarray(draw_frames(1, 40, 24)[0]).save(tmp_path / "a.png")
    info = probe(tmp_path / "a.png")
    assert (info.num_frames, info.width, info.height) == (1, 40, 24)


# -------------------------------------------------------------------------------------------- sizes and rates

@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("width, height", [(1280, 720), (1920, 1080), (640, 480), (719, 405), (100, 99),
                                           (720, 718)])
def test_landscape_stays_landscape_and_portrait_portrait(width, height, target):
    wide, tall = trained_size(width, height, target, 32, True), trained_size(height, width, target, 32, True)
    assert wide[0] >= wide[1] and tall == wide[::-1]


def test_hd_clip_is_trained_as_wide_as_it_is():
    assert trained_size(1280, 720, (384, 384), 64, True) == (512, 320)
    assert trained_size(720, 1280, (384, 384), 64, True) == (320, 512)


@pytest.mark.parametrize("side", [384, 718, 719, 33])
def test_square_stays_square(side):
    assert trained_size(side, side, (384, 384), 64, True) == (384, 384)


@pytest.mark.parametrize("width, height", [(1280, 720), (718, 718), (719, 405), (1, 1), (3000, 100),
                                           (64, 48)])
@pytest.mark.parametrize("stride", [8, 16, 64])
def test_trained_sides_are_multiples_of_the_stride(width, height, stride):
    size = trained_size(width, height, (384, 384), stride, True)
    assert min(size) >= stride and size[0] % stride == size[1] % stride == 0


@pytest.mark.parametrize("width, height", [(1280, 720), (718, 718), (719, 405), (576, 320), (480, 640)])
def test_aspect_ratio_is_off_by_no_more_than_the_rounding(width, height):
    size = trained_size(width, height, (384, 384), 8, True)
    ideal_width, ideal_height = (384 * 384 * width / height) ** 0.5, (384 * 384 * height / width) ** 0.5
    assert abs(size[0] - ideal_width) < 8 and abs(size[1] - ideal_height) < 8


def test_without_bucketing_the_size_is_the_one_asked_for():
    assert trained_size(1280, 720, (384, 256), 64, False) == (384, 256)


def drawn_circle(width: int, height: int) -> np.ndarray:
    """Return a white circle in the middle of black (h w c)."""
    y, x = np.mgrid[:height, :width]
    inside = (x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2 < (min(width, height) * 0.15) ** 2
    return np.repeat(inside[:, :, None] * np.uint8(255), 3, axis=2)


@pytest.mark.parametrize("width, height", [(1280, 720), (720, 1280), (718, 718), (719, 405), (64, 48)])
@pytest.mark.parametrize("size", [(384, 384), (512, 320), (320, 576), (64, 64)])
def test_circle_stays_a_circle(width, height, size):
    picture = resize_and_crop(drawn_circle(width, height), size)
    assert picture.shape == (size[1], size[0], 3)
    white = np.argwhere(picture[:, :, 0] > 127)   # (n, 2): rows, columns
    tall, wide = np.ptp(white, axis=0) + 1
    assert tall > 10 and abs(tall - wide) <= 1
    assert abs(white.mean(axis=0) - (np.array(size[::-1]) - 1) / 2).max() < 0.5   # and stays in the middle


def test_picture_is_not_mirrored(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255
    small = resize_and_crop(picture, (32, 24))
    assert small[4, 4, 0] == 255 and not small[4, -4].any() and not small[-4, 4].any()


@pytest.mark.parametrize("shift", [-0.25, 0.25])
def test_beyond_the_frame_its_edge_is_repeated(shift):
    frame = draw_frames(1, 64, 48)[0]
    seen = resize_and_crop(frame, (64, 48), shift)
    moved = np.roll(frame, int(-64 * shift), axis=1)
    if shift > 0:
        moved[:, 48:] = frame[:, -1:]
    else:
        moved[:, :16] = frame[:, :1]
    assert np.array_equal(seen, moved)


def test_a_wide_frame_is_moved_without_repeating_anything():
    frame = draw_frames(1, 96, 48)[0]
    assert np.array_equal(resize_and_crop(frame, (48, 48), 0.5), frame[:, 48:])


def test_moved_frames_of_a_file_are_those_of_its_frames(tmp_path):
    write_clip(tmp_path / "a.mp4", num_frames=5)
    shift, size = 0.2, (32, 24)
    pieces = list(iter_frames(tmp_path / "a.mp4", range(5), size, chunk=2, shift=shift))
    expected = [resize_and_crop(frame, size, shift) for frame in read_frames(tmp_path / "a.mp4", range(5))]
    assert np.array_equal(np.concatenate(pieces), np.stack(expected))


def test_frame_of_the_trained_size_is_untouched():
    frame = draw_frames(1, 64, 48)[0]
    assert np.array_equal(resize_and_crop(frame, (64, 48)), frame)


# ---------------------------------------------------------------------------------------------------- writing

def test_written_video_has_the_frames_in_order(tmp_path):
    frames = draw_frames(9, 64, 48)
    write_video(tmp_path / "a.mp4", frames, 8, {})
    assert probe(tmp_path / "a.mp4") == VideoInfo(9, 8.0, 64, 48)
    assert np.abs(read_frames(tmp_path / "a.mp4", range(9)).astype(int) - frames).mean() < 6


def test_written_video_is_what_browsers_play(tmp_path):
    write_clip(tmp_path / "a.mp4", num_frames=2)
    content = (tmp_path / "a.mp4").read_bytes()
    assert b"avc1" in content                                       # H.264
    assert content.index(b"moov") < content.index(b"mdat")          # plays before it is fully loaded
    described = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "a.mp4")],
                               capture_output=True)
    assert b"yuv420p" in described.stderr


@pytest.mark.parametrize("width, height, name", [(1280, 720, "bt709"), (96, 64, "smpte170m"),
                                                 (320, 320, "smpte170m")])
def test_written_video_has_the_colours_of_its_frames(tmp_path, width, height, name):
    """A player takes 720 lines for BT.709: written otherwise and untagged, a red was off by 31 levels."""
    frames = np.zeros((2, height, width, 3), np.uint8)
    colours = [(220, 30, 30), (30, 200, 40), (40, 50, 210), (250, 250, 250), (5, 5, 5), (200, 180, 60)]
    columns = [(width * (2 * place + 1)) // 12 for place in range(6)]
    for place, colour in enumerate(colours):
        frames[:, :, width * place // 6 : width * (place + 1) // 6] = colour
    write_video(tmp_path / "a.mp4", frames, 8, {})
    read = read_frames(tmp_path / "a.mp4", [1])[0, height // 2, columns].astype(int)
    assert np.abs(read - colours).max() <= 3
    described = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "a.mp4")],
                               capture_output=True)
    said = re.search(r"yuv420p\((.*?)\)", described.stderr.decode())[1]
    assert said.startswith(f"tv, {name}") and "unknown" not in said


@pytest.mark.parametrize("prompt", ["a cat", "two\nlines", "\"q\" 's'; # = \\ x\\n", "\U0001f600 \u732b",
                                    "x" * 400, "-i /etc/x", "a=b;c#d\\", " lead", "%d %05d",
                                    "C:\\new\\;", ""])
def test_metadata_comes_back_as_it_was(tmp_path, prompt):
    metadata = {"prompt": prompt, "seed": 2**63 - 1, "guidance_scale": 9.0, "motion": None}
    write_video(tmp_path / "a.mp4", draw_frames(2, 32, 32), 8, metadata)
    assert video_metadata(tmp_path / "a.mp4") == metadata == metadata_in(probe(tmp_path / "a.mp4").comment)


def test_video_of_another_program_has_no_metadata(clips):
    assert video_metadata(clips[".webm"]) == {}


def test_same_frames_make_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", draw_frames(3, 32, 32), 8, {"prompt": "a cat"})
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_encoder_that_runs_out_of_space_leaves_the_previous_video(tmp_path, full_disk):
    write_video(tmp_path / "a.mp4", draw_frames(2, 64, 64), 8, {"prompt": "before"})
    with full_disk(), pytest.raises(UserError, match=r"a.mp4: the video encoder .*\. .* are free there\.$"):
        write_video(tmp_path / "a.mp4", draw_frames(14, 64, 64, seed=1), 8, {"prompt": "after"})
    assert video_metadata(tmp_path / "a.mp4") == {"prompt": "before"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
