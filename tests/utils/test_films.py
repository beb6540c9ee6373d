"""Films: of every kind of file, the frames that a player shows, when it shows them, in their colours."""

import gc
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.filmed import draw, ffmpeg, numbers_on, shown, write_source
from utils.films import read_film
from utils.video import VideoInfo, glance, probe, read_frames, sampled_fps, sampled_frames

NUM_FRAMES = 48
X265 = ["-c:v", "libx265", "-x265-params", "log-level=none:pools=1:open-gop=1:keyint=20"]
# half of the frames 16 ms apart, half 66 ms
UNEVEN = ["-vf", "settb=1/1000,setpts='if(lt(N,24),N*16,384+(N-24)*66)'", "-fps_mode", "vfr",
          "-enc_time_base", "1:1000"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Numbered frames at 24 fps, without loss."""
    return write_source(tmp_path_factory.mktemp("source") / "source.mkv", NUM_FRAMES)


@pytest.fixture
def make(source, tmp_path):
    """Return a function that encodes the source into a file of another kind."""
    def make(name: str, *arguments: object, source: Path = source, before: tuple = ()) -> Path:
        ffmpeg(*before, "-i", source, *arguments, tmp_path / name)
        return tmp_path / name
    return make


def read_numbers(path: Path, indices: Sequence[int] | None = None) -> tuple[VideoInfo, list[int | None]]:
    """Return what is found in a file, and the numbers that its frames show: all, or those of `indices`."""
    info = probe(path)
    return info, numbers_on(read_frames(path, range(info.num_frames) if indices is None else indices))


def taken(path: Path, fps: float) -> list[int]:
    """Return the numbers that the frames sampled at `fps` show."""
    return read_numbers(path, sampled_frames(probe(path), fps))[1]


# ------------------------------------------------------------------------------------------ order and number

@pytest.mark.parametrize("name, arguments", [
    ("b.avi", ["-c:v", "mpeg4", "-bf", 2]), ("b264.avi", ["-c:v", "libx264", "-bf", 2]),
    ("hevc.mp4", X265), ("hevc.mkv", X265), ("h264.ts", ["-c:v", "libx264"]),
    ("h264.m2ts", ["-c:v", "libx264"]), ("mpeg2.mpg", ["-c:v", "mpeg2video", "-g", 15, "-f", "vob"]),
    ("wmv.wmv", ["-c:v", "wmv2"]), ("flv.flv", []),
    ("vp9.webm", ["-c:v", "libvpx-vp9", "-auto-alt-ref", 1, "-lag-in-frames", 16, "-cpu-used", 8]),
    ("ogv.ogv", ["-c:v", "libtheora", "-q:v", 8]), ("phone.3gp", ["-c:v", "libx264"]), ("m4v.m4v", []),
    ("mjpeg.avi", ["-c:v", "mjpeg"]), ("prores.mov", ["-c:v", "prores_ks"])])
def test_sampled_frames_are_in_order(make, name, arguments):
    """decord's get_batch gave 0 4 8 2 6 10 2 6 10 14 of the first of these at 12 frames a second."""
    path = make(name, *arguments)
    assert probe(path).fps == pytest.approx(24, abs=0.001)
    for fps in (24, 12, 8):
        assert taken(path, fps) == list(range(0, NUM_FRAMES, 24 // fps))


@pytest.mark.parametrize("name, arguments", [("a.mp4", []), ("a.mov", []), ("a.mkv", []), ("hevc.mp4", X265)])
def test_lossless_cut_has_the_frames_that_a_player_shows(make, name, arguments):
    """Packets before an edit list's beginning are decoded but not shown: decord counted them too."""
    whole = make(f"whole{name}", *arguments, "-g", 20)
    path = make(f"cut{name}", "-t", 0.75, "-c", "copy", source=whole, before=("-ss", 1.1))
    info, numbers = read_numbers(path)
    player = shown(path)
    assert numbers == player.codes and info.seconds == pytest.approx(player.seconds, abs=1e-3)
    if path.suffix != ".mkv":   # which has no edit lists
        assert numbers[0] > 20
        assert any("more frames are recorded, which players do not show" in note for note in info.notes)


@pytest.mark.parametrize("name, arguments, is_decoded", [
    ("a.mp4", ["-c:v", "libx264"], False), ("a.mkv", ["-c:v", "libx264"], False),
    ("turned.mov", ["-c:v", "libx264", "-aspect", 2], False), ("uneven.mp4", UNEVEN, False),
    ("hevc.mp4", X265, False), ("a.avi", ["-c:v", "mpeg4"], True), ("a.gif", [], True),
    ("a.ts", ["-c:v", "libx264"], True), ("a.webm", ["-c:v", "libvpx"], True)])
def test_glance_finds_the_times_and_the_size_that_decoding_finds(make, name, arguments, is_decoded):
    path = make(name, *arguments)
    glanced, looked_at = glance(path), probe(path)
    assert glanced == looked_at and glanced.rates == looked_at.rates
    assert (glanced.seconds, glanced.end, glanced.tick) == (looked_at.seconds, looked_at.end, looked_at.tick)
    assert bool(glanced.changes) == is_decoded


def test_glance_decodes_where_packets_are_not_what_is_shown(make):
    whole = make("whole.mp4", "-g", 20)
    path = make("cut.mp4", "-t", 0.75, "-c", "copy", source=whole, before=("-ss", 1.1))
    assert glance(path) == probe(path) and glance(path).changes


def test_other_video_streams_and_cover_pictures_are_passed_over(make, source, tmp_path):
    Image.fromarray(draw(1)[0]).save(tmp_path / "cover.png")
    path = tmp_path / "many.mkv"
    ffmpeg("-i", source, "-f", "lavfi", "-i", "testsrc=s=640x360:d=2", "-map", 0, "-map", 1, path)
    info, numbers = read_numbers(path)
    assert numbers == list(range(NUM_FRAMES))
    assert "it has 2 video streams, of which number 0 is used" in info.notes
    path = tmp_path / "cover.mp4"
    ffmpeg("-i", tmp_path / "cover.png", "-i", source, "-map", 0, "-map", 1, "-c:v:0", "copy",
           "-c:v:1", "libx264", "-disposition:v:0", "attached_pic", path)
    info, numbers = read_numbers(path)
    assert numbers == list(range(NUM_FRAMES)) and info.notes == ()


def test_sound_that_is_longer_adds_no_frames(make):
    info, numbers = read_numbers(make("sound.mp4", "-f", "lavfi", "-i", "sine=d=5"))
    assert numbers == list(range(NUM_FRAMES)) and info.end == pytest.approx(2)


def test_recording_cut_anywhere_is_read_from_its_first_whole_picture(make, tmp_path):
    content = make("a.ts", "-c:v", "libx264", "-g", 12).read_bytes()
    (tmp_path / "cut.ts").write_bytes(content[len(content) // 3 // 188 * 188:])
    player, (info, numbers) = shown(tmp_path / "cut.ts"), read_numbers(tmp_path / "cut.ts")
    assert numbers == player.codes and len(numbers) > 20
    assert info.seconds == pytest.approx(player.seconds, abs=1e-3)


def test_no_frame_is_kept_once_it_is_read(source):
    """A frame of 1080p is 3 MB, and Python frees reference cycles only now and then."""
    gc.collect()
    gc.disable()
    try:
        for get_pixels in read_film(source):
            get_pixels()
        assert sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()) <= 3
    finally:
        gc.enable()


def test_frame_of_another_size_is_scaled_to_the_first_ones(make, tmp_path):
    parts = [make("a.ts", "-c:v", "libx264"), make("b.ts", "-c:v", "libx264", "-s", "120x90")]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    last = probe(tmp_path / "both.ts").num_frames - 1
    assert last > NUM_FRAMES and read_frames(tmp_path / "both.ts", [last]).shape[1:3] == (180, 240)


# ------------------------------------------------------------------------------------------------------ time

@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_variable_rate_is_sampled_by_time(make, suffix):
    path = make(f"uneven{suffix}", *UNEVEN, *(["-c:v", "libvpx"] if suffix == ".webm" else []))
    info = probe(path)
    seconds = [n * 0.016 if n < 24 else 0.384 + (n - 24) * 0.066 for n in range(NUM_FRAMES)]
    assert info.seconds == pytest.approx(seconds, abs=1e-3)
    assert "the rate varies between 15.15 and 62.5 fps: sampled by time" in info.notes
    rounding = min(info.tick, 1e-3) + 1e-6   # of mp4 next to nothing, of mkv and webm 1 ms
    for fps in (6, 8, 20, 60):
        moments = np.arange(0, info.end - rounding, 1 / fps)
        assert taken(path, fps) == [int(np.searchsorted(seconds, t + rounding, "right")) - 1 for t in moments]


def test_encoder_that_begins_late_holds_no_frame(make):
    """Xvid writes nothing for the first frames: the first packet is decoded at 0 and shown at 3."""
    path = make("late.avi", "-c:v", "libxvid", "-bf", 2)
    player, (info, numbers) = shown(path), read_numbers(path)
    assert numbers == player.codes and info.rates is None
    assert info.seconds == pytest.approx(player.seconds, abs=1e-3)


def test_rate_that_only_jitters_is_the_recorded_one(make):
    path = make("phone.mp4", "-vf", "settb=1/90000,setpts='N*3000+mod(N*7919,200)'", "-fps_mode", "vfr",
                "-enc_time_base", "1:90000")
    info = probe(path)
    assert info.fps == pytest.approx(30, rel=0.01) and info.rates is None
    assert sampled_frames(info, 30.5) == tuple(range(NUM_FRAMES))


def test_moments_between_frames_show_the_frame_before(make):
    path = make("a.mp4", "-frames:v", 30, before=("-r", 30))
    for fps in (30, 25, 24, 20, 10, 7):
        assert taken(path, fps) == [k * 30 // fps for k in range(fps)]
        assert sampled_fps(probe(path), fps) == fps
    assert sampled_fps(probe(path), 60) == 30


def test_matroska_rounds_to_milliseconds_and_loses_no_frame(make):
    path = make("a.mkv", "-c:v", "libx264")
    assert probe(path).fps == 24 and taken(path, 8) == list(range(0, NUM_FRAMES, 3))


def test_timestamps_that_are_all_the_same_count_as_missing(make):
    """Dividing by the time between them gave ZeroDivisionError."""
    path = make("still.mkv", "-c:v", "ffv1", "-vf", "setpts=0", "-fps_mode", "passthrough")
    info, numbers = read_numbers(path)
    assert numbers == list(range(NUM_FRAMES))
    assert info.fps == pytest.approx(24, rel=0.02)   # Matroska counts whole milliseconds
    assert any("timestamps are missing" in note for note in info.notes)


def test_timestamps_that_are_missing_are_said(make):
    path = make("raw.mp4", "-c:v", "libx264", "-f", "h264")   # a bare stream, with no times at all
    info, numbers = read_numbers(path)
    assert numbers == list(range(NUM_FRAMES)) and info.fps == pytest.approx(24, rel=0.1)


# ------------------------------------------------------------------------------------------------ the picture

@pytest.mark.parametrize("aspect, size", [("4/3", (320, 180)), ("3/4", (240, 240)), ("1", (240, 180))])
def test_pixels_become_square(make, aspect, size):
    path = make("wide.mp4", "-vf", f"setsar={aspect}")
    info = probe(path)
    assert (info.width, info.height) == size and info.num_frames == NUM_FRAMES
    assert read_frames(path, [0]).shape[1:3] == size[::-1]
    assert bool(info.notes) == (aspect != "1")


@pytest.mark.parametrize("option, turned", [
    (("-display_rotation", 90), lambda frames: np.rot90(frames, axes=(1, 2))),
    (("-display_rotation", 180), lambda frames: np.rot90(frames, 2, axes=(1, 2))),
    (("-display_rotation", 270), lambda frames: np.rot90(frames, 3, axes=(1, 2))),
    (("-display_hflip",), lambda frames: frames[:, :, ::-1]),
    (("-display_vflip",), lambda frames: frames[:, ::-1])])
def test_clip_is_upright(make, option, turned):
    path = make("phone.mp4", "-c", "copy", source=make("lying.mp4"), before=option)
    upright = turned(draw(2)).astype(int)
    assert (probe(path).width, probe(path).height) == upright.shape[2:0:-1]
    assert np.abs(read_frames(path, [0, 1]) - upright).mean() < 4


def test_interlaced_clip_has_no_comb_lines(tmp_path):
    path = tmp_path / "fields.mpg"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=160x120:r=50:d=1[a];color=red:s=40x80:r=50:d=1[b];"
           "[a][b]overlay=x=n*2:y=20", "-vf", "interlace=lowpass=0", "-flags", "+ilme+ildct",
           "-c:v", "mpeg2video", "-q:v", 2, path)

    def comb(frames):   # how much lines differ from those around them
        lines = frames.astype(int)[1:-1, 22:98]
        return np.abs(lines[:, 1:-1] - (lines[:, :-2] + lines[:, 2:]) / 2).mean()
    recorded = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8)
    recorded = recorded.reshape(-1, 120, 160, 3)
    frames = read_frames(path, range(25))
    assert "interlaced: its comb lines are removed" in probe(path).notes
    assert probe(path).num_frames == len(recorded) == 25
    assert comb(frames) < comb(recorded) / 5 and np.abs(frames.astype(int) - recorded).mean() < 3


def test_clip_whose_first_frames_are_not_interlaced_has_no_comb_lines(tmp_path):
    for name, options in (("a.ts", ["-x264-params", "fake-interlaced=1"]),
                          ("b.ts", ["-flags", "+ilme+ildct", "-x264-params", "tff=1"])):
        ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=0.5", *options, "-c:v", "libx264",
               "-pix_fmt", "yuv420p", tmp_path / name)
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    path = tmp_path / "both.mp4"
    ffmpeg("-i", tmp_path / "both.ts", "-c", "copy", path)
    info = probe(path)
    assert "interlaced: its comb lines are removed" in info.notes and not info.is_plain
    *_, last = (get_pixels() for get_pixels in read_film(path))
    assert np.array_equal(read_frames(path, [info.num_frames - 1])[0], last)


COLOURS = [(200, 60, 30), (30, 160, 60), (40, 60, 190), (235, 235, 235), (16, 16, 16), (120, 120, 120),
           (200, 200, 40)]


def write_colours(path: Path, size: tuple[int, int], *arguments: object) -> np.ndarray:
    """Write stripes of COLOURS and return the place of each: columns."""
    edges = np.linspace(0, size[0], len(COLOURS) + 1).astype(int)
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    for colour, left, right in zip(COLOURS, edges, edges[1:]):
        frame[:, left:right] = colour
    ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", 8, "-i", "-",
           *arguments, path, input=frame.tobytes() * 2)
    return (edges[1:] + edges[:-1]) // 2


def colours_of(path: Path, columns: np.ndarray) -> np.ndarray:
    frame = read_frames(path, [1])[0]
    return frame[frame.shape[0] // 2, columns].astype(int)


@pytest.mark.parametrize("size, matrix, tag, levels, pixels", [
    ((320, 180), "bt601", "smpte170m", "tv", "yuv420p"), ((320, 180), "bt601", None, "tv", "yuv420p"),
    ((320, 180), "bt709", "bt709", "tv", "yuv420p10le"), ((320, 180), "bt601", "smpte170m", "pc", "yuv420p"),
    ((1280, 720), "bt709", None, "tv", "yuv420p10le"), ((720, 1280), "bt709", None, "tv", "yuv420p"),
    ((1280, 720), "bt601", "smpte170m", "tv", "yuv420p"),
    ((320, 180), "bt2020", "bt2020nc", "tv", "yuv420p10le"),
    ((320, 180), "bt601", "smpte170m", "pc", "yuv420p10le")])
def test_colours_are_those_that_were_recorded(tmp_path, size, matrix, tag, levels, pixels):
    columns = write_colours(
        tmp_path / "a.mkv", size, "-vf", f"scale=out_color_matrix={matrix}:out_range={levels},"
        f"format={pixels},setparams=colorspace={tag or 'unknown'}", "-c:v", "ffv1", "-color_range", levels)
    assert np.abs(colours_of(tmp_path / "a.mkv", columns) - COLOURS).max() <= 3


@pytest.mark.parametrize("transfer, name", [("arib-std-b67", "HLG"), ("smpte2084", "PQ")])
def test_hdr_is_mapped_to_the_ordinary_range(tmp_path, transfer, name):
    """Colours up to white at 203 nits come back, a little compressed; washed out they would be grey."""
    columns = write_colours(
        tmp_path / "hdr.mp4", (320, 180), "-vf",
        "setparams=color_trc=bt709:color_primaries=bt709:colorspace=gbr:range=pc,format=gbrpf32le,"
        f"zscale=t=linear:npl=203,zscale=t={transfer}:p=bt2020:m=bt2020nc:r=tv:npl=203,format=yuv444p10le",
        "-c:v", "libx265", "-x265-params", "log-level=none:lossless=1")
    assert f"HDR ({name}): mapped to the ordinary range" in probe(tmp_path / "hdr.mp4").notes
    found = colours_of(tmp_path / "hdr.mp4", columns)
    assert np.abs(found - COLOURS).max() <= 40, found


@pytest.mark.parametrize("name, arguments", [
    ("vp9.webm", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"]),
    ("vp8.webm", ["-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", 0]),
    ("qtrle.mov", ["-c:v", "qtrle", "-pix_fmt", "argb"]),
    ("prores.mov", ["-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"]),
    ("png.mov", ["-c:v", "png", "-pix_fmt", "rgba"])])
def test_transparent_parts_are_white(tmp_path, name, arguments):
    ffmpeg("-f", "lavfi", "-i",
           "color=red:s=64x64:d=1:r=8,format=rgba,geq=r=255:g=0:b=0:a='if(lt(X,32),255,0)'",
           *arguments, tmp_path / name)
    frame = read_frames(tmp_path / name, [3])[0].astype(int)
    assert np.abs(frame[32, 10] - (255, 0, 0)).max() < 12 and np.abs(frame[32, 54] - 255).max() < 12
    assert "transparent: shown on white" in probe(tmp_path / name).notes


def test_fourth_byte_of_an_uncompressed_avi_is_no_transparency(tmp_path):
    """It is unused, and mostly 0. FFmpeg calls the pixels bgra."""
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:d=1:r=8,format=bgra,colorchannelmixer=aa=0",
           "-c:v", "rawvideo", "-pix_fmt", "bgra", tmp_path / "raw.avi")
    assert np.abs(read_frames(tmp_path / "raw.avi", [3])[0].astype(int) - (255, 0, 0)).max() < 12
    assert not probe(tmp_path / "raw.avi").notes


@pytest.mark.parametrize("name, arguments", [
    ("huffyuv.avi", ["-c:v", "huffyuv", "-pix_fmt", "bgra"]),
    ("ffvhuff.avi", ["-c:v", "ffvhuff", "-pix_fmt", "bgra"]),
    ("qtrle.mov", ["-c:v", "qtrle", "-pix_fmt", "argb"]), ("ffv1.mkv", ["-c:v", "ffv1", "-pix_fmt", "bgra"]),
    ("utvideo.avi", ["-c:v", "utvideo", "-pix_fmt", "gbrap"])])
def test_channel_of_transparency_that_nobody_filled_is_no_transparency(tmp_path, name, arguments):
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:d=1:r=8,format=rgba,geq=r=255:g=0:b=0:a=0",
           *arguments, tmp_path / name)
    assert np.abs(read_frames(tmp_path / name, [3])[0].astype(int) - (255, 0, 0)).max() < 12
    assert not probe(tmp_path / name).notes


def test_transparency_that_begins_later_is_noted(tmp_path):
    ffmpeg("-f", "lavfi", "-i",
           "color=red:s=64x64:d=1:r=8,format=rgba,geq=r=255:g=0:b=0:a='if(gt(T,0.5),99,255)'",
           "-c:v", "qtrle", "-pix_fmt", "argb", tmp_path / "later.mov")
    assert "transparent: shown on white" in probe(tmp_path / "later.mov").notes


def test_avi_from_a_pipe_does_not_say_how_long_it_is(tmp_path):
    path = tmp_path / "piped.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:d=1:r=8", "-c:v", "mjpeg", path)
    content = path.read_bytes()
    for length in (b"\xff" * 4, bytes(4)):
        path.write_bytes(content[:4] + length + content[8:])
        assert probe(path).num_frames == 8


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), b"\xff\xfe rubbish of a camera"])
def test_bytes_behind_the_last_box_of_an_mp4_are_let_be(tmp_path, tail):
    path = tmp_path / "tagged.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:d=1:r=8", path)
    path.write_bytes(path.read_bytes() + tail)
    assert probe(path).num_frames == 8


def test_warnings_of_the_picture_library_are_no_damage(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a picture with a long description " * 4
    Image.fromarray(draw(1)[0]).save(tmp_path / "a.jpg", exif=exif.tobytes()[:60])
    info = probe(tmp_path / "a.jpg")
    assert info.num_frames == 1 and not info.damage


# --------------------------------------------------------------------------------------------------- pictures

def save_animation(path: Path, num_frames: int, milliseconds: int | list[int]) -> Path:
    frames = [Image.fromarray(frame) for frame in draw(num_frames)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0,
                   **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng", ".png"])
def test_animated_picture_is_sampled_by_time_at_its_median_rate(tmp_path, suffix):
    path = save_animation(tmp_path / f"a{suffix}", 10, [70] * 9 + [3000])
    info = probe(path)
    assert info.fps == pytest.approx(1000 / 70) and info.rates is None and info.end == pytest.approx(3.63)
    moments = np.arange(0, 3.63, 1 / 8)
    assert taken(path, 8) == [min(9, int(moment / 0.07 + 1e-6)) for moment in moments]


@pytest.mark.parametrize("delay", [0, 10])
def test_gif_without_delays_plays_as_in_browsers(tmp_path, delay):
    assert probe(save_animation(tmp_path / "a.gif", 5, delay)).fps == 10


@pytest.mark.parametrize("orientation, turned", [
    (1, lambda picture: picture), (2, lambda picture: picture[:, ::-1]),
    (3, lambda picture: np.rot90(picture, 2)), (6, lambda picture: np.rot90(picture, 3)), (8, np.rot90)])
def test_photo_is_upright(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(draw(1)[0]).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_frames(tmp_path / "a.png", [0])[0], turned(draw(1)[0]))


def test_photo_of_a_phone_is_its_first_picture(tmp_path):
    """Phones put a preview, a depth or a gain map behind the photo."""
    photo, other = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (32, 24), "blue")
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[other], quality=95)
    info, frame = probe(tmp_path / "a.jpg"), read_frames(tmp_path / "a.jpg", [0])[0]
    assert info.num_frames == 1 and np.abs(frame - np.array([255, 0, 0])).max() < 4


def test_picture_of_16_bits_keeps_its_greys(tmp_path):
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "a.png")
    frame = read_frames(tmp_path / "a.png", [0])[0]
    assert np.abs(frame - grey[:, :, None] / 257).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_transparent_picture_lies_on_white(tmp_path, suffix):
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, :16] = (200, 0, 0, 255)
    pixels[:, 16:] = (0, 200, 0, 0)   # hidden
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **options)
    frame = read_frames(tmp_path / f"a{suffix}", [0])[0]
    assert np.abs(frame[0, 0] - np.array([200, 0, 0])).max() < 8 and frame[0, 20].tolist() == [255, 255, 255]


def test_numbers_are_read_as_they_are_drawn():
    assert numbers_on(draw(1000, 80, 60)) == list(range(1000))
