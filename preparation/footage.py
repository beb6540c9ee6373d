"""Footage: which files were named, their frames in one pass of ffmpeg, and clips cut exactly to the frame.

Analysis and cutting number frames alike: frame i is what is shown i / fps seconds after the first frame.
ffmpeg repeats or drops frames where a phone has recorded at a varying rate, so that times stay right. It
scales frames before it hands them over, which utils/video.py cannot: most of the time would go into pipes.
"""

import errno
import json
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from utils.containers import VIDEO_SUFFIXES
from utils.errors import UserError
from utils.files import NotWritten, replacing
from utils.video import CRF, VideoInfo, probe

WORK_FOLDER = ".prepared"   # in an output folder: analyses, stills of what was left out, dropped clips
CUT_VERSION = 1         # of how clips are cut; an existing clip of another version is cut again
STALLED_SECONDS = 120   # without a frame, after which a decoder is given up
SCALER = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"   # the quick ways darken by 2 grey levels
PRESET = "veryfast"     # takes 0.4 times what x264's default takes; 49 dB instead of 50, in 5 % more bytes
MANY_PIXELS = 1e6       # of a frame, above which several threads decode
LONG_SIDE = 256         # pixels of the frames that are analysed
DISK_REFUSES = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))   # as ffmpeg says it


@dataclass(frozen=True)
class Cut:
    """A clip to be written: frames of the footage, shown at `fps`, cut to `box` and scaled to `size`."""

    path: Path
    frames: tuple[int, ...]
    fps: float
    box: tuple[int, int, int, int]   # left, top, width, height in pixels
    size: tuple[int, int]            # width, height in pixels
    recipe: dict                     # what made it, for the file's comment field


def find_footage(inputs: Sequence[Path], output: Path,
                 say: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Return the videos among and below `inputs`.

    Hidden files are not footage, nor is what lies in `output` or in another data folder that this program
    has made, unless that folder is named. `say` is told of each data folder that is left out.
    Raises UserError with a line for every input that is missing, holds no video, or is the output itself.
    """
    problems, found, inside, made = [], [], output.resolve(), set()
    for path in inputs:
        if path.resolve().is_relative_to(inside):
            problems.append(f"{path}: is the output folder, or lies in it. Name another folder with -o.")
        elif path.is_dir():
            ours = {folder.parent for folder in path.rglob(WORK_FOLDER) if folder.parent != path}
            below = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in VIDEO_SUFFIXES
                     and not any(part.startswith(".") for part in file.relative_to(path).parts)
                     and file.is_file() and not file.resolve().is_relative_to(inside)
                     and not ours & set(file.parents)]
            made |= ours
            if not below:
                problems.append(f"{path}: holds no video ({', '.join(VIDEO_SUFFIXES)}). "
                                f"Name a video, or a folder of videos.")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            problems.append(f"{path}: does not exist. Name a video, or a folder of videos.")
    if problems:
        raise UserError(*problems)
    for folder in sorted(made - set(inputs)):
        if folder.resolve() != inside:
            say(f"{folder}: is left out, because prepare_clips.py made it. Name it to cut its clips again.")
    return list({path.resolve(): path for path in found}.values())


def small_frames(path: Path, info: VideoInfo, complaints: list[str]) -> Iterator[np.ndarray]:
    """Yield every frame scaled down to LONG_SIDE: uint8 (h * 3/2 w), the planes of YUV 4:2:0 for OpenCV.

    The first h rows are the luma, in which 16 is black and 235 white.
    What ffmpeg finds damaged is added to `complaints`, one line. Raises UserError if the decoder stalls.
    """
    scale = min(1, LONG_SIDE / max(info.width, info.height))
    width, height = (max(16, round(side * scale / 2) * 2) for side in (info.width, info.height))
    threads = "0" if info.width * info.height > MANY_PIXELS else "1"   # 0: one for each core
    filters = f"{_at_its_rate(info)},scale={width}:{height}:flags=area:out_range=tv"
    command = [*_decode(path, "-threads", threads), "-filter_threads", "1",
               "-map", f"0:{info.stream}", "-vf", filters,
               "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"]
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
            command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process:
        try:
            while (pixels := _read(process.stdout, width * height * 3 // 2, path)) is not None:
                yield np.frombuffer(pixels, np.uint8).reshape(height * 3 // 2, width)
            code = process.wait(STALLED_SECONDS)
        except subprocess.TimeoutExpired:
            raise _stalled(path) from None
        finally:
            process.kill()
        errors.seek(0)
        said = errors.read(2000).decode(errors="replace").splitlines()[:1]
        said = said or [f"ffmpeg ended with code {code}"] * bool(code)
        complaints += map(_without_addresses, said)


def _without_addresses(line: str) -> str:
    """Return a line of ffmpeg without the parts of ffmpeg that say it, each with its address in memory."""
    return re.sub(r"^(\[[^]]*\] *)+", "", line)


def write_cuts(path: Path, info: VideoInfo, cuts: Sequence[Cut]) -> None:
    """Write the clips cut from one file, in one pass over it: H.264 with colour tags, no audio.

    Each clip is whole or absent. Raises UserError if the file cannot be cut, NotWritten if the disk is full.
    """
    labels = [f"[c{index}]" for index in range(len(cuts))]
    graph = [f"[0:{info.stream}]bwdif=send_frame:deint=interlaced,{_at_its_rate(info)},"
             f"scale={info.width}:{info.height}:flags={SCALER},split={len(cuts)}{''.join(labels)}"]
    last, outputs = max(cut.frames[-1] for cut in cuts), []
    with ExitStack() as stack:
        partials = [stack.enter_context(replacing(cut.path)) for cut in cuts]
        for index, (cut, partial) in enumerate(zip(cuts, partials, strict=True)):
            graph.append(f"{labels[index]}{_filters(cut, info.matrix)}[o{index}]")
            outputs += ["-map", f"[o{index}]", *_encode(cut, partial)]
        command = [*_decode(path, "-t", f"{(last + 2) / info.fps:.3f}"),
                   "-filter_complex", ";".join(graph), *outputs]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        for cut, partial in zip(cuts, partials, strict=True):
            if result.returncode or not _is_whole(partial, cut):
                said = result.stderr.decode(errors="replace")
                if result.returncode == -signal.SIGXFSZ or any(map(said.__contains__, DISK_REFUSES)):
                    raise NotWritten(cut.path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), None)
                said = _without_addresses(said.partition("\n")[0])[:200].rstrip(". ")
                raise UserError(f"{path}: could not be cut: {said or 'frames are missing'}. "
                                f"Re-encode it as H.264.")


def _is_whole(partial: Path, cut: Cut) -> bool:
    try:
        return probe(partial).num_frames == len(cut.frames)
    except UserError:   # without a frame it is no video
        return False


def _decode(path: Path, *options: str) -> list[str]:
    import imageio_ffmpeg

    # a file that is a playlist in disguise must not send ffmpeg to the network
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-protocol_whitelist", "file", *options,
            "-i", f"file:{path}"]


def _at_its_rate(info: VideoInfo) -> str:
    """Return the filters that number frames: the first picture is frame 0, wherever in the file it begins."""
    return f"setpts=PTS-STARTPTS,fps={_exact(info.fps)}"


def _exact(fps: float) -> Fraction:
    """Return a rate as the fraction it stands for: 29.97 is 30000/1001."""
    return Fraction(fps).limit_denominator(1001)


def _filters(cut: Cut, matrix: str) -> str:
    left, top, width, height = cut.box
    runs = np.split(cut.frames, np.flatnonzero(np.diff(cut.frames) != 1) + 1)   # of consecutive frames
    chosen = "+".join(f"between(n,{run[0]},{run[-1]})" for run in runs)
    return (f"select='{chosen}',settb={1 / _exact(cut.fps)},setpts=N,"
            f"crop={width}:{height}:{left}:{top}:exact=1,scale={cut.size[0]}:{cut.size[1]}:flags={SCALER}:"
            f"{f'in_color_matrix={matrix}:' if matrix else ''}out_color_matrix=bt709:out_range=tv,"
            f"format=yuv420p,setsar=1")


def _encode(cut: Cut, partial: Path) -> list[str]:
    return ["-an", "-map_metadata", "-1",   # a phone's file says where it was
            "-r", str(_exact(cut.fps)), "-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF),
            "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv",
            "-movflags", "+faststart",
            "-metadata", f"comment={json.dumps(cut.recipe, ensure_ascii=False)}", f"file:{partial}"]


def _read(pipe, num_bytes: int, path: Path) -> bytearray | None:
    """Return the next `num_bytes` of a pipe; None at its end. Raises UserError if nothing comes for long."""
    pixels, filled = bytearray(num_bytes), 0
    while filled < num_bytes:
        if not select.select([pipe], [], [], STALLED_SECONDS)[0]:
            raise _stalled(path)
        got = pipe.readinto(memoryview(pixels)[filled:])
        if not got:
            return None
        filled += got
    return pixels


def _stalled(path: Path) -> UserError:
    return UserError(f"{path}: gives no frame for {STALLED_SECONDS} s. Remove it, or re-encode it as H.264.")
