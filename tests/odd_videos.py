"""Small video files of every kind that people have, and the frames that a player shows of each.

The frames that are filmed carry their number as black and white bars, so a frame that was decoded says which
one it is. What a player shows is asked of ffmpeg: its own sequential decode, with timestamps.

    python -m tests.odd_videos FOLDER [WORD ...]    # write the files whose names have all WORDs; say how
"""

import functools
import re
import shlex
import subprocess
import sys
from bisect import bisect_right
from dataclasses import dataclass
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from tests.reliability import numbers

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
PATCHES = np.array([(200, 40, 40), (40, 160, 40), (50, 70, 210), (128, 128, 128), (255, 255, 255)])
HIDDEN = (255, 0, 255)   # the colour of the last patch where it is transparent
BITS = 5                 # per row of bars; two rows make a number, and two more repeat it inverted
SQUARE = 0.8             # side of the square that has bars and patches, as a part of the frame's shorter side
BARS = 0.72              # height of all bars, as a part of the square; the patches have the rest


# ------------------------------------------------------------------------------------------ the filmed frames

def regions(width: float, height: float) -> np.ndarray:
    """Return the boxes (n, 4) of left, top, right, bottom: 4 rows of 7 bars, then 5 patches, in pixels.

    The first bar of a row is white and the last one black, so that a mirrored frame has no number.
    """
    side = SQUARE * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    boxes = []
    for row in range(4):
        for bar in range(BITS + 2):
            boxes.append((bar / (BITS + 2), row * BARS / 4, (bar + 1) / (BITS + 2), (row + 1) * BARS / 4))
    boxes += [(patch / len(PATCHES), BARS, (patch + 1) / len(PATCHES), 1) for patch in range(len(PATCHES))]
    return np.array(boxes) * side + (left, top, left, top)


def draw(num_frames: int, width: int, height: int, alpha: bool = False) -> np.ndarray:
    """Return frames 0, 1, ... (f h w c) with their number, uint8, RGB or RGBA with a transparent patch."""
    y, x = np.mgrid[:height, :width]
    background = np.stack([60 + 60 * x / width, 60 + 60 * y / height, np.full(x.shape, 90), x * 0 + 255], -1)
    frames = np.repeat(background.astype(np.uint8)[None], num_frames, axis=0)
    boxes = np.round(regions(width, height)).astype(int)
    colours = np.concatenate([np.zeros((len(boxes), 3), int), np.full((len(boxes), 1), 255)], axis=1)
    colours[4 * (BITS + 2) :, :3] = PATCHES
    if alpha:
        colours[-1] = (*HIDDEN, 0)
    for index, frame in enumerate(frames):
        bits = [index >> bit & 1 for bit in range(2 * BITS)]
        inverted = [1 - bit for bit in bits]
        rows = [(1, *row, 0) for row in (bits[:BITS], bits[BITS:], inverted[:BITS], inverted[BITS:])]
        colours[: 4 * (BITS + 2), :3] = 255 * np.array(rows).reshape(-1, 1)
        for (left, top, right, bottom), colour in zip(boxes, colours):
            frame[top:bottom, left:right] = colour
    return frames if alpha else frames[..., :3]


def look(frames: np.ndarray, boxes: np.ndarray) -> tuple[list[int | None], np.ndarray]:
    """Return the numbers that `frames` (f h w c) show, None where unreadable, and their patches (f n c)."""
    inner = boxes * 0.75 + boxes[:, [2, 3, 0, 1]] * 0.25   # away from the edges
    inner = np.concatenate([np.floor(inner[:, :2]), np.ceil(inner[:, 2:])], axis=1).astype(int)
    means = np.stack([frames[:, top:bottom, left:right].mean(axis=(1, 2))
                      for left, top, right, bottom in inner.tolist()], axis=1)
    bars = means[:, : 4 * (BITS + 2)].mean(axis=-1).reshape(-1, 4, BITS + 2)
    white, black = bars[..., :1], bars[..., -1:]
    is_white = (bars > (white + black) / 2)[..., 1:-1].reshape(-1, 2, 2 * BITS)
    readable = (white - black > 60).all(axis=(1, 2)) & (is_white[:, 0] != is_white[:, 1]).all(axis=1)
    values = (is_white[:, 0] << np.arange(2 * BITS)).sum(axis=1)
    return [int(value) if good else None for value, good in zip(values, readable)], \
        means[:, 4 * (BITS + 2) :]


def regions_of_crop(displayed: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Return where `regions` are once the largest centred box of the frames is scaled to `size`."""
    scale = max(size[0] / displayed[0], size[1] / displayed[1])
    offset = (np.array(displayed) - np.array(size) / scale) / 2
    return (regions(*displayed) - (*offset, *offset)) * scale


# ---------------------------------------------------------------------------------------- what a player shows

@dataclass(frozen=True)
class Shown:
    """What ffmpeg decodes of a file, in sequence."""

    codes: list[int | None]    # the number of each frame, in the order shown
    seconds: list[float]       # when each is shown, after the first
    end: float                 # when the last one goes
    tick: float                # of the container's clock, in seconds, 1 ms at most
    size: tuple[float, float]  # width and height as displayed
    patches: np.ndarray        # (f n c) colours

    def samples(self, fps: float) -> list[tuple[list[set[int]], int]]:
        """Return the ways of sampling the file: for every sample the frames that are right, and how many
        samples there are at least. There are two ways where the rate of the file is `fps`, up to a tick.
        """
        ways, gaps = [], [after - before for before, after in zip(self.seconds, self.seconds[1:])]
        medians = [sorted(some)[len(some) // 2 - back] for some in (gaps, [*gaps, self.end - self.seconds[-1]])
                   for back in (0, 1 - len(some) % 2) if some]
        if any(median < 1 / fps + self.tick for median in medians):   # at the moments k / fps
            moments = np.arange(int((self.end + self.tick) * fps) + 1) / fps
            sets = [{max(0, bisect_right(self.seconds, moment + shift) - 1)
                     for shift in (-self.tick - 1e-6, 0, self.tick + 1e-6)} for moment in moments]
            ways.append((sets, int((self.seconds[-1] - self.tick) * fps) + 1))
        if any(median > 1 / fps - self.tick for median in medians) or len(self.codes) == 1:
            ways.append(([{index} for index in range(len(self.codes))], len(self.codes)))
        return ways


def shown(path: Path) -> Shown:
    """Ask ffmpeg, with its defaults: edit lists are honoured, frames turned upright."""
    command = [FFMPEG, "-nostdin", "-hide_banner", "-i", str(path), "-an", "-sn", "-dn",
               "-vf", "showinfo=checksum=0", "-fps_mode", "passthrough", "-f", "rawvideo",
               "-pix_fmt", "rgb24", "-"]
    process = subprocess.run(command, capture_output=True)
    said = process.stderr.decode(errors="replace")
    unit = Fraction(*map(int, re.search(r"config in time_base: (\d+)/(\d+)", said).groups()))
    lines = re.findall(r" n: *\d+ pts: *(\S+) .*?duration: *(\S+) .*? sar:(\d+)/(\d+) s:(\d+)x(\d+)", said)
    times = [int(line[0]) * unit for line in lines]
    across, down, width, height = map(int, lines[0][2:])
    frames = np.frombuffer(process.stdout, np.uint8).reshape(-1, height, width, 3)
    assert len(frames) == len(times) and times == sorted(set(times)), f"{path}: no order: {times}"
    gaps = sorted(after - before for before, after in zip(times, times[1:]))
    last = int(lines[-1][1]) * unit if lines[-1][1].isdigit() else 0
    displayed = (width * across / down, height) if across else (width, height)
    codes, patches = look(frames, regions(*displayed) * [width / displayed[0], 1, width / displayed[0], 1])
    return Shown(codes, [float(time - times[0]) for time in times],
                 float(times[-1] - times[0] + max(last, gaps[len(gaps) // 2] if gaps else 0)),
                 float(min(unit, Fraction(1, 1000))), displayed, patches)


# ----------------------------------------------------------------------------------------- the table of kinds

@dataclass(frozen=True)
class Kind:
    """One file: what is odd about it, its name, and how ffmpeg makes it from filmed frames."""

    theme: str
    name: str
    steps: tuple[str, ...]   # arguments of ffmpeg; {source}, {out} and {0}, {1}, what the steps before wrote
    size: tuple[int, int] = (96, 72)
    num_frames: int = 48
    rate: str = "24"
    alpha: bool = False

    def commands(self, folder: Path) -> list[list[str]]:
        """Return the commands that write folder/name from the frames of `film`."""
        path, source = folder / self.name, film(folder, self.num_frames, *self.size, self.alpha)
        outs = [folder / f"_{index}{path.suffix}" for index in range(len(self.steps) - 1)] + [path]
        pixels = (f"-f rawvideo -pix_fmt {'rgba' if self.alpha else 'rgb24'} "
                  f"-s {self.size[0]}x{self.size[1]} -r {self.rate} -i {shlex.quote(str(source))}")
        (folder / "_list.txt").write_text(f"file _0{path.suffix}\nfile _1{path.suffix}\n")
        return [[FFMPEG, "-v", "error", "-nostdin", "-y",
                 *shlex.split(step.format(*outs, source=pixels, list=shlex.quote(str(folder / "_list.txt"))) + " " + shlex.quote(str(out)))]
                for step, out in zip(self.steps, outs)]

    def write(self, folder: Path) -> str:
        """Write folder/name; return what ffmpeg says against it, nothing if it is written."""
        for command in self.commands(folder):
            process = subprocess.run(command, capture_output=True)
            if process.returncode:
                return process.stderr.decode(errors="replace").strip().splitlines()[0]
        return ""


@functools.cache
def film(folder: Path, num_frames: int, width: int, height: int, alpha: bool) -> Path:
    """Return a file of raw frames."""
    path = folder / f"_{num_frames}_{width}x{height}{'_alpha' * alpha}.raw"
    path.write_bytes(draw(num_frames, width, height, alpha).tobytes())
    return path


X264, X265 = "-c:v libx264 -preset veryfast -crf 14", "-c:v libx265 -preset ultrafast -crf 14"
QUIET = "log-level=none:pools=none"
MPEG4, VP8, VP9 = "-c:v mpeg4 -q:v 2", "-c:v libvpx -b:v 2M -deadline realtime", "-c:v libvpx-vp9 -b:v 2M"
VP9 += " -deadline realtime -cpu-used 8"
# codec: its containers, the options of all its files, and those of one file each
CODECS = {
    "h264": ("mp4 mov mkv avi ts flv m4v", f"{X264} -pix_fmt yuv420p",
             ["-g 1", "-bf 0 -g 12", "-bf 2 -g 300", "-bf 3 -g 24 -x264-params open-gop=1",
              "-bf 8 -refs 6 -x264-params b-pyramid=normal:b-adapt=0:keyint=40"]),
    "hevc": ("mp4 mov mkv ts", f"{X265} -pix_fmt yuv420p -tag:v hvc1",
             [f"-x265-params {QUIET}", f"-x265-params {QUIET}:keyint=1", f"-x265-params {QUIET}:keyint=24:bframes=0",
              f"-x265-params {QUIET}:keyint=12:min-keyint=12:open-gop=1:bframes=4:b-adapt=0"]),
    "mpeg4": ("avi mp4 mov mkv ts", MPEG4, ["-g 1", "-bf 2", "-bf 3 -g 300", "-bf 0 -g 12"]),
    "xvid": ("avi mkv", "-c:v libxvid -q:v 2", ["-bf 2", "-bf 0 -g 300"]),
    "mpeg2": ("ts mpg mkv mov avi", "-c:v mpeg2video -q:v 2", ["-g 1", "-bf 2 -g 12", "-bf 2 -g 12 -flags +cgop -sc_threshold 1000000000"]),
    "mpeg1": ("mpg", "-c:v mpeg1video -q:v 2", ["-g 12 -bf 2", "-g 1"]),
    "vp8": ("webm mkv", VP8, ["-g 300 -auto-alt-ref 1 -lag-in-frames 16", "-g 12"]),
    "vp9": ("webm mkv mp4", VP9, ["-g 300 -auto-alt-ref 1 -lag-in-frames 16 -deadline good", "-g 12", "-g 1"]),
    "av1": ("mp4 mkv webm", "-c:v libsvtav1 -preset 12 -crf 20", ["-g 300", "-g 12"]),
    "aom": ("mp4 mkv", "-c:v libaom-av1 -cpu-used 8 -crf 20", ["-g 24"]),
    "mjpeg": ("avi mov mkv mp4", "-c:v mjpeg -q:v 2", ["", "-pix_fmt yuvj444p"]),
    "prores": ("mov mkv", "-c:v prores_ks", ["-profile:v 2", "-profile:v 4 -pix_fmt yuv444p10le"]),
    "ffv1": ("mkv avi mov", "-c:v ffv1", ["-pix_fmt yuv420p", "-g 1 -pix_fmt bgr0"]),
    "theora": ("ogv", "-c:v libtheora -q:v 9", ["-g 12"]),
    "wmv2": ("wmv", "-c:v wmv2 -q:v 2", ["-g 12"]),
    "msmpeg4": ("avi", "-c:v msmpeg4 -q:v 5", ["-g 12"]),
    "flv1": ("flv", "-c:v flv -q:v 2", ["-g 12"]),
    "h263": ("3gp", "-c:v h263 -q:v 2 -s 128x96", ["-g 12"]),
    "lossless": ("avi mov mkv", "", ["-c:v huffyuv", "-c:v utvideo", "-c:v png", "-c:v ffvhuff -pix_fmt yuv420p"]),
    "raw": ("avi mov", "-c:v rawvideo", ["-pix_fmt uyvy422"]),
    "qtrle": ("mov", "-c:v qtrle", [""]),
    "gif": ("gif", '-vf "split[a][b];[a]palettegen[p];[b][p]paletteuse"', ["", "-gifflags -transdiff-offsetting"]),
    "webp": ("webp", "-c:v libwebp_anim -loop 0", ["-lossless 1", "-q:v 90"]),
    "apng": ("apng", "-f apng -plays 0", ["", "-pred mixed"]),
}
# a few ways to write the files of the other themes
COMMON = {"mp4": f"{X264} -bf 2 -pix_fmt yuv420p", "mov": f"{X264} -g 12 -pix_fmt yuv420p", "mkv": f"{X265} -x265-params {QUIET}",
          "avi": f"{MPEG4} -bf 2", "webm": f"{VP9} -g 30", "ts": f"{X264} -bf 2 -g 20 -pix_fmt yuv420p",
          "mpg": "-c:v mpeg2video -q:v 2 -bf 2"}
RATES = {"first half 62.5, second half 15 a second": "if(lt(N,24),16*N,384+66*(N-24))",
         "slower and slower": "10*N+N*N", "two of five frames left out": "40*(N+floor(N/3)*2)",
         "uneven": "33*N+floor(15*sin(N*5))", "a stop of 1.5 s": "40*N+if(gt(N,20),1500,0)",
         "first frame held": "if(N,1000+30*N,0)", "a burst at 120 after 24": "if(lt(N,24),42*N,1008+8*(N-24))"}


def kinds() -> list[Kind]:
    """Return all files, by theme."""
    return [*by_codec(), *by_time(), *by_picture(), *by_container()]


def by_codec() -> Iterator[Kind]:
    sizes, rates = [(96, 72), (160, 90), (72, 128), (66, 50)], ["24", "25", "30000/1001", "60", "50", "24000/1001"]
    for codec, (suffixes, common, variants) in CODECS.items():
        for suffix in suffixes.split():
            for index, options in enumerate(variants):
                rng = numbers("codec", codec, suffix, index)
                size = rng.choice(sizes[:1] if codec in ("av1", "h263") else sizes)
                yield Kind(codec, f"{codec}_{index}.{suffix}", (f"{{source}} {common} {options}",), size,
                           rng.choice((30, 48, 75)), "24" if codec in ("gif", "h263") else rng.choice(rates))


def by_time() -> Iterator[Kind]:
    for suffix, options in COMMON.items():
        for index, expression in enumerate(RATES.values() if suffix not in ("avi", "mpg") else ()):
            yield Kind("variable rate", f"rate_{index}.{suffix}", (
                f"{{source}} -vf \"settb=1/1000,setpts='{expression}'\" -fps_mode passthrough -enc_time_base filter {options}",))
        for index, (start, length) in enumerate([(1.5, 1), (0.3, 2), (2.02, 0.7), (0, 1.1)]):
            yield Kind("cut without encoding", f"cut_{index}.{suffix}", (
                f"{{source}} {options}", f"-ss {start} -i {{0}} -t {length} -c copy"), num_frames=96)
            yield Kind("cut without encoding", f"cut_sound_{index}.{suffix}", (
                f"{{source}} -f lavfi -i sine=r=48000 -shortest {options}" + " -c:a libopus" * (suffix == "webm"),
                f"-ss {start} -i {{0}} -t {length} -c copy"), num_frames=96)
        for length in (1, 2, 3, 5):
            yield Kind("very short", f"short_{length}.{suffix}", (f"{{source}} {options}",), num_frames=length)
        yield Kind("long", f"long.{suffix}", (f"{{source}} {options}",), num_frames=600, rate="60")
        yield Kind("start not at zero", f"late.{suffix}", (f"{{source}} {options} -output_ts_offset 3.7",))
        yield Kind("start not at zero", f"early.{suffix}", (
            f"{{source}} {options}", "-itsoffset -0.3 -i {0} -c copy -avoid_negative_ts disabled"))
        for rate in ("10", "12", "15", "7.5", "120"):
            yield Kind("other rates", f"slow_{rate}.{suffix}", (f"{{source}} {options}",),
                       rate="25" if suffix == "mpg" else rate, num_frames=40)
    for suffix in ("gif", "webp", "apng"):
        options = CODECS[suffix][1] if suffix != "gif" else ""
        for index, expression in enumerate([*RATES.values(), "70*N+if(gt(N,40),3000,0)", "N*10"]):
            filters = f"settb=1/{100 if suffix == 'gif' else 1000},setpts='{expression}"
            filters += "/10'" if suffix == "gif" else "'"
            yield Kind("delays of pictures", f"delays_{index}.{suffix}", (
                f'{{source}} -vf "{filters}" -fps_mode passthrough {options}',))
        for length in (1, 2, 3):
            yield Kind("very short", f"short_{length}.{suffix}", (f"{{source}} {options}",), num_frames=length)


def by_picture() -> Iterator[Kind]:
    for degrees, turn in ((90, "transpose=1"), (180, "hflip,vflip"), (270, "transpose=2")):
        for suffix in ("mp4", "mov", "mkv"):
            for flip in ("", "hflip,")[: 1 + (suffix == "mov")]:
                yield Kind("turned", f"turned_{degrees}{flip[:-1]}.{suffix}", (
                    f"{{source}} -vf {flip}{turn} {COMMON[suffix]}",
                    f"-display_rotation {degrees} {'-display_hflip' * bool(flip)} -i {{0}} -c copy"), (96, 72))
    for ratio, width in (("4/3", 120), ("8/9", 180), ("64/45", 112), ("12/11", 146), ("2/1", 80), ("1/2", 320)):
        for suffix, options in COMMON.items():
            if suffix != "mpg":
                yield Kind("pixel aspect", f"pixels_{ratio.replace('/', '_')}.{suffix}", (
                    f"{{source}} -vf scale={width}:120,setsar={ratio} {options}",), (160, 120))
    yield Kind("pixel aspect", "pixels_4_3.mpg", (f"{{source}} -vf scale=120:120,setdar=4/3 {COMMON['mpg']}",), (160, 120))
    for size in ((66, 50), (70, 54), (64, 98), (50, 66), (98, 64), (97, 65), (33, 47)):
        for suffix, options in COMMON.items():
            if suffix in ("mp4", "mkv") and size[0] % 2:
                options += " -pix_fmt yuv444p"
            elif suffix in ("mov", "ts") and size[0] % 2:
                continue
            yield Kind("odd sizes", f"size_{size[0]}x{size[1]}.{suffix}", (f"{{source}} {options}",), size)
    for matrix in ("bt601", "bt709", "bt2020"):
        space = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}[matrix]
        for value in ("tv", "pc"):
            for depth in ("yuv420p", "yuv422p10le", "yuv444p"):
                tags = (f"-vf scale=out_color_matrix={matrix}:out_range={value} -pix_fmt {depth} "
                        f"-colorspace {space} -color_range {value}")
                for suffix, codec in (("mp4", X264), ("mkv", f"{X265} -x265-params {QUIET}"), ("webm", VP9)):
                    yield Kind("colours", f"colour_{matrix}_{value}_{depth}.{suffix}", (f"{{source}} {tags} {codec}",))
    for transfer in ("smpte2084", "arib-std-b67"):
        for suffix, codec in (("mp4", f"{X265} -tag:v hvc1"), ("mkv", X265), ("webm", VP9)):
            more = f"-x265-params {QUIET}:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc" if codec != VP9 else ""
            yield Kind("HDR", f"hdr_{transfer}.{suffix}", (
                "{source} -vf scale=out_color_matrix=bt2020:out_range=tv -pix_fmt yuv420p10le -colorspace bt2020nc "
                f"-color_primaries bt2020 -color_trc {transfer} -color_range tv {codec} {more}",))
    for order in ("tff", "bff"):
        for suffix, codec in (("mp4", f"{X264} -bf 2"), ("mkv", X264), ("ts", "-c:v mpeg2video -q:v 2 -bf 2"),
                              ("mpg", "-c:v mpeg2video -q:v 2"), ("avi", "-c:v mpeg4 -q:v 2"), ("mov", "-c:v prores_ks")):
            yield Kind("interlaced", f"{order}.{suffix}", (
                f"{{source}} -vf setfield={order} -flags +ilme+ildct -pix_fmt "
                f"{'yuv422p10le' if suffix == 'mov' else 'yuv420p'} {codec}",), rate="25")
    for suffix, options in (("webm", f"{VP9} -pix_fmt yuva420p"), ("mkv", f"{VP8} -pix_fmt yuva420p -auto-alt-ref 0"),
                            ("mov", "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le"), ("avi", "-c:v png -pix_fmt rgba"),
                            ("gif", '-vf "split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse"'),
                            ("webp", "-c:v libwebp_anim -lossless 1 -pix_fmt bgra"), ("apng", "-f apng")):
        yield Kind("alpha", f"alpha.{suffix}", (f"{{source}} {options}",), alpha=True)


def by_container() -> Iterator[Kind]:
    sound = {"webm": "-c:a libopus", "avi": "-c:a libmp3lame", "mpg": "-c:a mp2"}
    for suffix, options in COMMON.items():
        for index, (offset, length) in enumerate([(0, 5), (-0.5, 2), (0.7, 1), (0.021, 2)]):
            yield Kind("sound of another length", f"sound_{index}.{suffix}", (
                f"{{source}} -itsoffset {offset} -f lavfi -i sine=r=48000:d={length} -map 0 -map 1 {options} "
                f"{sound.get(suffix, '-c:a aac')}",))
        if suffix != "mpg":
            small = f"{{source}} {{source}} -filter_complex \"[1]negate,scale=64:48[b]\" -map 0 -map [b] {options}"
            yield Kind("several streams", f"streams_small.{suffix}", (small,))
    for suffix in ("mp4", "mov"):
        for position, order in enumerate(("-map 0 -map 1", "-map 1 -map 0")):
            yield Kind("cover art", f"cover_{position}.{suffix}", (
                f"{{source}} {COMMON[suffix]}", "-f lavfi -i testsrc=s=320x320 -frames:v 1 -c:v mjpeg -f mjpeg",
                f"-i {{0}} -i {{1}} {order} -c copy -disposition:v:{1 - position} attached_pic"))
    yield Kind("cover art", "cover.mkv", (
        "-f lavfi -i testsrc=s=320x320 -frames:v 1 -c:v mjpeg -f mjpeg",
        f"{{source}} {COMMON['mkv']} -attach {{0}} -metadata:s:t mimetype=image/jpeg"))
    for flags in ("frag_keyframe+empty_moov", "frag_every_frame+empty_moov", "faststart", "dash", "negative_cts_offsets",
                  "empty_moov+default_base_moof+frag_keyframe+delay_moov"):
        for suffix, options in (("mp4", COMMON["mp4"]), ("mov", f"{X265} -x265-params {QUIET} -tag:v hvc1")):
            yield Kind("fragmented and flags", f"flags_{flags.replace('+', '_')}.{suffix}", (
                f"{{source}} {options} -movflags {flags}",))
    for suffix, options in (("ts", COMMON["ts"]), ("mpg", COMMON["mpg"])):
        yield Kind("concatenated", f"concat.{suffix}", (
            f"{{source}} {options}", f"{{source}} -ss 1 {options} -output_ts_offset 2",
            "-i concat:{0}|{1} -c copy"))
    for suffix in ("mp4", "mkv", "ts"):
        yield Kind("concatenated", f"two_rates.{suffix}", (
            f"{{source}} -t 1 {COMMON[suffix]}", f"{{source}} -vf setpts=2*PTS -r 12 -ss 2 {COMMON[suffix]}",
            "-f concat -i {list} -c copy"))


def main() -> None:
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds():
        if all(word in f"{kind.theme} {kind.name}" for word in words):
            trouble = kind.write(folder)
            print(*map(shlex.join, kind.commands(folder)), f"# {trouble or 'written'}", sep="\n", flush=True)


if __name__ == "__main__":
    main()
