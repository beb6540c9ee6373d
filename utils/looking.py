"""What must be known of a video or picture before its frames are used.

    look      by decoding all of it once
    glance    what its container says, for a caller that decodes all of it anyway
"""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av

from utils.containers import MAX_FPS, is_cut_off, is_picture_file
from utils.errors import UserError
from utils.films import (
    Packet,
    decoded,
    difference,
    has_alpha,
    is_filled,
    is_full_range,
    matrix,
    open_video,
    orientation,
    pixel_aspect,
    planes_of,
    recorded_size,
    video_streams,
)
from utils.pictures import read_pictures
from utils.timelines import JUMP, LONGEST_TICK, mended, own_rate, range_of_rates, usual_step
from utils.tone_mapping import HDR

MILLISECOND, CENTISECOND, MICROSECONDS = Fraction(1, 1000), Fraction(1, 100), Fraction(1_000_000)
ROUNDING = 2     # ticks by which distances are off in a container that counts in milliseconds or less
# formats whose streams may be recordings put together, each with a clock of its own
TIME_STARTS_ANEW = ("mpegts", "mpeg", "mpegvideo", "dv")
# where a packet is a frame, and says when the frame is shown: formats, and codecs in them
PACKETS_ARE_FRAMES = (("mov", "matroska"), ("h264", "hevc"))


def check_whole(path: Path) -> None:
    """Raise UserError if a file is missing, empty or cut off."""
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"{path}: is empty (0 bytes). Remove it or copy it again.")
        if is_cut_off(path):
            raise UserError(f"{path}: is cut off: the file ends before the video does. Copy it again.")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def look(path: Path, keep_alive: Callable[[], None]) -> dict:
    """Return the fields of VideoInfo. `keep_alive` is called after every frame.

    `damage` lacks the libraries' complaints, which utils/decoding.py adds. It is left out for pictures.

    Raises UserError if the file cannot be read to its end.
    """
    check_whole(path)
    facts = look_at_pictures(path, keep_alive) if is_picture_file(path) else look_at_film(path, keep_alive)
    if facts["fps"] > MAX_FPS:
        raise UserError(f"{path}: claims {facts['fps']:.4g} frames a second, so when its frames are shown is "
                        f"unknown. Re-encode it as H.264.")
    return facts


def glance(path: Path, keep_alive: Callable[[], None]) -> dict:
    """Return the fields of VideoInfo without `changes`, `comment` and `damage`, and decode one frame only.

    Damage behind that frame stays unseen. Where the container does not tell the fields for sure, `look` is
    asked. Raises UserError if the file cannot be read.
    """
    check_whole(path)
    facts = None if is_picture_file(path) else packet_facts(path, keep_alive)
    return facts if facts and facts["fps"] <= MAX_FPS else look(path, keep_alive)


def packet_facts(path: Path, keep_alive) -> dict | None:
    """Return what the packets of a film say; None where packets and frames may not match one to one."""
    container, stream = open_video(path)
    formats, codecs = PACKETS_ARE_FRAMES
    with container:
        if not container.format.name.startswith(formats) or stream.codec_context.name not in codecs:
            return None
        packets, frames = [], []
        try:
            for packet in container.demux(stream):
                if packet.size and not packets:
                    if not packet.is_keyframe:
                        return None
                    frames = stream.codec_context.decode(packet) + stream.codec_context.decode(None)
                if packet.size:
                    packets.append((packet.pts, packet.duration, packet.is_discard or packet.is_corrupt))
                keep_alive()
        except av.error.FFmpegError:
            return None
        if len(packets) < 2 or not frames or any(pts is None or is_odd for pts, _, is_odd in packets):
            return None
        packets.sort()
        stamps = [pts for pts, _, _ in packets]
        if len(set(stamps)) < len(stamps):
            return None
        return {**_timeline(stamps, packets[-1][1], container, stream, []), **_shown(frames[0], stream),
                "is_plain": False}


def look_at_pictures(path: Path, keep_alive) -> dict:
    """Look at what Pillow reads."""
    stamps, changes, before, transparent = [0], [], None, False
    for pixels, milliseconds, is_transparent in read_pictures(path):
        planes = [pixels[:, :, channel] for channel in range(3)]
        changes.append(difference(before, planes) / 3 if before else 0.0)
        before = planes
        stamps.append(stamps[-1] + round(milliseconds * 1000))
        transparent |= is_transparent
        keep_alive()
    height, width, _ = pixels.shape
    notes = ["transparent: shown on white"] * transparent
    # a GIF counts in the first, WebP in the second
    tick = next((tick for tick in (CENTISECOND, MILLISECOND)
                 if all(stamp % (tick * MICROSECONDS) == 0 for stamp in stamps)), 1 / MICROSECONDS)
    stamps = [round(stamp / (tick * MICROSECONDS)) for stamp in stamps]
    facts = timeline_facts(stamps[:-1], stamps[-1] - stamps[-2], tick, 1, [], False, notes)
    return {**facts, "tick": float(MILLISECOND), "width": width, "height": height, "changes": changes,
            "is_plain": not transparent}


def look_at_film(path: Path, keep_alive) -> dict:
    """Look at what FFmpeg reads."""
    container, stream = open_video(path)
    stamps, decoded_at, changes, packets, notes = [], [], [], [], []
    seen, before, duration, transparent = Counter(), None, 0, False
    with container:
        for frame in decoded(container, stream, path, packets):
            if not stamps:
                shown, hdr, first = _shown(frame, stream), HDR.get(frame.color_trc), frame
            transparent = transparent or is_transparent(frame, stream)
            planes = planes_of(frame)
            changes.append(difference(before, planes) if before else 0.0)
            before, duration = planes, frame.duration
            stamps.append(frame.pts)
            decoded_at.append(frame.dts)
            seen["interlaced"] += frame.interlaced_frame
            seen["sizes"] += (frame.width, frame.height) != (first.width, first.height)
            seen["corrupt"] += frame.is_corrupt
            keep_alive()
        if pixel_aspect(stream) != 1:
            notes.append(f"recorded at {first.width}x{first.height}, with pixels that are "
                         f"{pixel_aspect(stream)} as wide as high")
        notes += ["interlaced: its comb lines are removed"] * bool(seen["interlaced"])
        notes += [f"HDR ({hdr}): mapped to the ordinary range"] * bool(hdr)
        notes += ["transparent: shown on white"] * transparent
        notes += [f"frames of another size, which are scaled: {seen['sizes']}"] * bool(seen["sizes"])
        if num_others := len(video_streams(container)) - 1:
            notes.append(f"it has {num_others + 1} video streams, of which number {stream.index} is used")
        if num_discarded := sum(packet.is_discard for packet in packets):
            notes.append(f"{num_discarded} more frames are recorded, which players do not show")
        stamps = in_order(stamps, decoded_at)
        facts = _timeline(stamps, duration, container, stream, notes)
        plain = not (seen["interlaced"] or seen["sizes"]) and len(packets) == len(stamps) \
            and is_plain(first, stream, packets)
    damage = f"incomplete frames: {seen['corrupt']}" if seen["corrupt"] else ""
    return {**facts, **shown, "changes": changes, "is_plain": plain, "damage": damage,
            "comment": container.metadata.get("comment", "")}


def _timeline(stamps: list[int | None], last_duration: int | None, container: av.container.InputContainer,
              stream: av.VideoStream, notes: list[str]) -> dict:
    declared = [stream.average_rate, stream.base_rate, stream.guessed_rate]
    return timeline_facts(stamps, last_duration, stream.time_base,
                          ROUNDING if stream.time_base <= LONGEST_TICK else 0, declared,
                          container.format.name in TIME_STARTS_ANEW, notes)


def in_order(stamps: list[int | None], decoded_at: list[int | None]) -> list[int | None]:
    """Return the timestamps of frames. If one is missing or goes back, return the times of decoding, as
    ffmpeg does, because AVI has no other times.

    A decoder holds frames back, and gives no time of decoding with the last ones. They follow at the usual
    distance.
    """
    times = [time for time in decoded_at if time is not None]
    held_back = len(stamps) - len(times)
    if None not in stamps and stamps == sorted(stamps) or not times:
        return stamps
    if decoded_at[:len(times)] != times or any(a >= b for a, b in pairwise(times)):
        return stamps
    usual = usual_step(times, 1)
    return times + [times[-1] + usual * number for number in range(1, held_back + 1)]


def timeline_facts(stamps: list[int | None], last_duration: int | None, tick: Fraction, rounding: int,
                   declared: list[Fraction | None], may_jump: bool, notes: list[str]) -> dict:
    """Return what the timestamps say: how many frames, when they are shown, and at which rate."""
    rates = [rate for rate in declared if rate]
    if len(set(stamps)) == 1:   # of frames that all have the same timestamp, only the first has one
        stamps = stamps[:1] + [None] * (len(stamps) - 1)
    usual = usual_step(stamps, last_duration or (1 / (rates[0] * tick) if rates else 1 / tick))
    times, num_changed = mended(stamps, usual, JUMP / tick if may_jump else float("inf"))
    if num_changed:
        notes.append(f"{num_changed} of {len(times)} timestamps are missing or go back: a frame without one "
                     f"follows the frame before at the usual distance")
    varying = range_of_rates(times, usual, tick, rounding)
    fps = own_rate(times, usual, tick, rounding, varying is not None, rates)
    if varying:
        notes.append(f"the rate varies between {varying[0]:.4g} and {varying[1]:.4g} fps: sampled by time")
    end = (times[-1] + (last_duration or usual)) * tick
    return {"num_frames": len(times), "fps": float(fps), "rates": varying,
            "seconds": [float(time * tick) for time in times], "end": float(end), "tick": float(tick),
            "notes": notes}


def is_plain(frame: av.VideoFrame, stream: av.VideoStream, packets: list[Packet]) -> bool:
    """Say whether any reader that goes from frame to frame reads a file rightly.

    Its rate is constant, every recorded frame is shown, its pixels are square, opaque and upright, in 4:2:0
    and the colours of standard definition.
    """
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    steps = [b - a for a, b in pairwise(times)]
    return (len(times) == len(packets) and not any(packet.is_discard for packet in packets)
            and max(steps, default=1) - min(steps, default=1) <= 1
            and len(video_streams(stream.container)) == 1
            and pixel_aspect(stream) == 1 and stream.metadata.get("alpha_mode") != "1"
            and frame.format.name == "yuv420p" and matrix(frame) == "bt601" and not is_full_range(frame)
            and not frame.interlaced_frame and frame.color_trc not in HDR
            and not frame.side_data.get("DISPLAYMATRIX"))


def displayed_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Return the width and height in which a frame is shown."""
    width, height = recorded_size(frame, stream)
    turn = orientation(frame)
    return (height, width) if abs(turn[0, 1]) > abs(turn[0, 0]) else (width, height)


def _shown(frame: av.VideoFrame, stream: av.VideoStream) -> dict:
    width, height = displayed_size(frame, stream)
    has_matrix = not (frame.format.is_rgb or frame.format.has_palette)
    return {"width": width, "height": height, "stream": stream.index,
            "matrix": matrix(frame) if has_matrix else ""}


def is_transparent(frame: av.VideoFrame, stream: av.VideoStream) -> bool:
    """Say whether part of a frame is transparent."""
    if not has_alpha(frame, stream):
        return False
    alpha = frame.reformat(format="rgba").to_ndarray()[:, :, 3]
    return bool(alpha.min() < 255) and is_filled(alpha, stream)
