"""Damaged and odd videos: each is read rightly or named, none hangs, and none takes the program down."""

import shutil
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_frames, write_clip
from tests.reliability import Report, count, numbers
from tests.utils.test_video import CODECS, ffmpeg
from training.clips import find_clips
from training.config_loading import parse_config
from utils.errors import UserError
from utils.video import VideoInfo, probe, read_frames

NUM_FRAMES, WIDTH, HEIGHT = 20, 96, 64
LONGEST = 60   # seconds for any one of these small files, on a machine that does other things too


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """The same whole clip in every container, once wide and once narrow: they are decoded differently."""
    folder = tmp_path_factory.mktemp("clips")
    paths = {}
    for width in (WIDTH, 64):
        mp4 = write_clip(folder / f"{width}.mp4", num_frames=NUM_FRAMES, width=width, height=HEIGHT)
        paths[mp4.name] = mp4
        for suffix, codec in CODECS.items():
            paths[f"{width}{suffix}"] = folder / f"{width}{suffix}"
            ffmpeg("-i", mp4, *codec, paths[f"{width}{suffix}"])
    return paths


def cut(content: bytearray, rng: Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flip_bits(content: bytearray, rng: Random) -> bytes:
    for _ in range(rng.choice((1, 3, 20, 200))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def overwrite(content: bytearray, rng: Random) -> bytes:
    start, length = rng.randrange(len(content)), rng.randrange(1, 500)
    end = min(len(content), start + length)
    content[start:end] = rng.choice((bytes(end - start), rng.randbytes(end - start)))
    return content


def leave_out(content: bytearray, rng: Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randrange(1, 500) :]


def scramble_header(content: bytearray, rng: Random) -> bytes:
    for _ in range(4):
        content[rng.randrange(min(400, len(content)))] = rng.randrange(256)
    return content


def repeat(content: bytearray, rng: Random) -> bytes:
    return content + content[rng.randrange(len(content)) :]


def empty(content: bytearray, rng: Random) -> bytes:
    return b""


def noise(content: bytearray, rng: Random) -> bytes:
    return rng.randbytes(len(content))


DAMAGES = (cut, flip_bits, overwrite, leave_out, scramble_header, repeat, empty, noise)


def read(path: Path) -> tuple[VideoInfo, np.ndarray, str]:
    info = probe(path)
    return info, read_frames(path, range(info.num_frames)), info.damage


def outcome(path: Path, whole: np.ndarray) -> str:
    """Read a damaged clip as training does, and say in a word how it went."""
    began = time.monotonic()
    try:
        info, frames, said = read(path)
    except UserError as error:
        assert all(line.startswith(f"{path}: ") and len(line) < 500 for line in error.problems), error
        return "took the decoder down, named" if "the decoder down" in str(error) else "refused, named"
    finally:
        assert time.monotonic() - began < LONGEST, path
    assert frames.shape == (info.num_frames, info.height, info.width, 3)
    if said:
        return "read, damage named in the report"
    if frames.shape == whole.shape and np.array_equal(frames, whole):
        return "read, every pixel as recorded"
    return "read, other pixels than recorded, not named"


def test_damaged_clips_are_read_or_named(sources, tmp_path):
    report, whole = Report("damaged clips"), {name: read(path)[1] for name, path in sources.items()}
    for attempt in range(count(sample=24, full=240)):
        rng, damage = numbers("clips", attempt), DAMAGES[attempt % len(DAMAGES)]
        name = rng.choice(sorted(sources))
        path = tmp_path / f"{attempt}_{damage.__name__}_{name}"
        path.write_bytes(damage(bytearray(sources[name].read_bytes()), rng))
        word = outcome(path, whole[name])
        kind = "H.264" if path.suffix in (".mp4", ".mov", ".mkv") else "GIF, VP8, MPEG-4"
        report.add(f"{kind}: {word}")
        path.unlink()
    report.write()
    # no codec carries checksums: some flipped bits make another valid video, which no decoder can tell; H.264
    # seldom allows that, older codecs and the palette of a GIF often do
    all_of = {kind: sum(number for word, number in report.outcomes.items() if word.startswith(kind))
              for kind in ("H.264", "GIF")}
    silent = {kind: sum(number for word, number in report.outcomes.items() if word.startswith(kind)
                        and "not named" in word) for kind in all_of}
    assert silent["H.264"] <= 0.05 * all_of["H.264"] and silent["GIF"] <= 0.5 * all_of["GIF"], report.outcomes


WRONG_NAMES = [("96.mp4", ".mkv"), ("96.mkv", ".mp4"), ("96.webm", ".avi"), ("96.avi", ".mov"),
               ("96.gif", ".mp4"), ("64.gif", ".mp4"), ("96.mp4", ".gif"), ("96.webm", ".png")]


@pytest.mark.parametrize("name, suffix", WRONG_NAMES)
def test_wrong_extension_is_read_all_the_same_or_named(sources, tmp_path, name, suffix):
    path = tmp_path / f"wrong{suffix}"
    shutil.copy(sources[name], path)
    try:
        info, frames, _ = read(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        return
    assert np.array_equal(frames, read(sources[name])[1])


@pytest.mark.parametrize("name, arguments, expected", [
    ("one_frame.mp4", ["-frames:v", "1"], (1, 96, 64)),
    ("odd_444.mp4", ["-vf", "scale=97:65", "-pix_fmt", "yuv444p"], (20, 97, 65)),
    ("odd_narrow_444.mp4", ["-vf", "scale=33:47", "-pix_fmt", "yuv444p"], (20, 33, 47)),
    ("ten_bits.mp4", ["-pix_fmt", "yuv420p10le"], (20, 96, 64)),
    ("grey.mp4", ["-pix_fmt", "gray"], (20, 96, 64)),
    ("alpha.mov", ["-c:v", "qtrle", "-pix_fmt", "argb"], (20, 96, 64)),
    ("alpha_png.mov", ["-c:v", "png", "-pix_fmt", "rgba"], (20, 96, 64)),
    ("alpha.webm", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"], (20, 96, 64)),
    ("with_sound.mp4", ["-f", "lavfi", "-i", "sine=d=2.5", "-shortest"], (20, 96, 64)),
    ("keyframes_only.mp4", ["-g", "1"], (20, 96, 64)),
    ("one_keyframe_b_frames.mp4", ["-g", "999", "-bf", "3"], (20, 96, 64)),
    ("hevc.mp4", ["-c:v", "libx265", "-x265-params", "log-level=none:pools=none"], (20, 96, 64)),
    ("motion_jpeg.avi", ["-c:v", "mjpeg"], (20, 96, 64)),
    ("fragmented.mp4", ["-movflags", "frag_keyframe+empty_moov"], (20, 96, 64)),
    ("variable_rate.mkv", ["-vf", "settb=1/1000,setpts=N*N*20", "-fps_mode", "vfr"], (20, 96, 64)),
    ("variable_rate.mp4", ["-vf", "settb=1/1000,setpts=N*N*20", "-fps_mode", "vfr"], (20, 96, 64)),
    ("variable_rate_narrow.mp4", ["-vf", "scale=64:64,settb=1/1000,setpts=N*N*20", "-fps_mode", "vfr"],
     (20, 64, 64)),
])
def test_odd_clip_is_read_rightly(sources, tmp_path, name, arguments, expected):
    """In number, size and order of the frames, and in what they show."""
    path = tmp_path / name
    ffmpeg("-i", sources["96.mp4"], *arguments, path)
    info, frames, said = read(path)
    assert (info.num_frames, info.width, info.height) == expected and said == ""
    pictures = [Image.fromarray(frame).resize(expected[1:]) for frame in read(sources["96.mp4"])[1]]
    if name == "grey.mp4":
        pictures = [picture.convert("L").convert("RGB") for picture in pictures]
    originals = np.stack([np.asarray(picture) for picture in pictures]).astype(int)
    for index, frame in enumerate(frames):
        distances = np.abs(originals - frame).mean(axis=(1, 2, 3))
        assert distances.argmin() == index and distances[index] < 12, (index, distances)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_clip_is_upright(sources, tmp_path, rotation):
    path = tmp_path / "phone.mp4"
    ffmpeg("-display_rotation", rotation, "-i", sources["96.mp4"], "-c", "copy", path)
    turned = np.rot90(read(sources["96.mp4"])[1], rotation // 90, axes=(1, 2)).astype(int)
    assert np.abs(read(path)[1] - turned).mean() < 2


@pytest.mark.parametrize("width", [96, 64])
def test_long_clip_is_read_to_its_end(tmp_path, width):
    path, num_frames = tmp_path / "long.mp4", count(sample=2_000, full=10_000)
    ffmpeg("-f", "lavfi", "-i", f"testsrc=s={width}x64:r=30", "-frames:v", num_frames, "-preset", "ultrafast",
           path)
    began = time.monotonic()
    assert probe(path).num_frames == num_frames
    first, last = read_frames(path, [0, num_frames - 1])
    assert not np.array_equal(first, last) and time.monotonic() - began < LONGEST


def test_data_folder_of_odd_clips_is_reported_whole(sources, tmp_path):
    """Every clip that cannot be read is named, all at once; none is left out in silence."""
    folder = tmp_path / "clips"
    write_clip(folder / "good.mp4", num_frames=20)
    for name, content in (("empty.mp4", b""), ("text.mov", b"no video"), ("noise.mkv", bytes(range(256)) * 9),
                          ("cut.mp4", sources["96.mp4"].read_bytes()[:3000])):
        (folder / name).write_bytes(content)
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.5", folder / "song.mp4")
    config = parse_config(f"train_data: {{path: {folder}, fallback_prompt: a, n_sample_frames: 4, fps: 8, "
                          f"width: 64, height: 64}}", "test")[0]
    with pytest.raises(UserError) as caught:
        find_clips(config, 8)
    named = [Path(problem.partition(":")[0]).name for problem in caught.value.problems]
    assert named == ["cut.mp4", "empty.mp4", "noise.mkv", "song.mp4", "text.mov"]


def test_damage_is_a_note_in_the_report(tmp_path):
    path = write_clip(tmp_path / "clips" / "torn.mp4", num_frames=20, width=96, caption="a V* spin")
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + 2000
    content[middle : middle + 40] = b"\x55" * 40
    path.write_bytes(content)
    config = parse_config(f"train_data: {{path: {path.parent}, n_sample_frames: 4, fps: 8}}", "test")[0]
    (clip,), _ = find_clips(config, 8)
    assert any("the decoder found it damaged" in remark for remark in clip.remarks)


def test_clips_are_drawn_as_the_sources_say(sources):
    """What the others compare with is itself right."""
    frames = read(sources["96.mp4"])[1]
    assert np.abs(frames.astype(int) - draw_frames(NUM_FRAMES, WIDTH, HEIGHT)).mean() < 6
