"""Video files, decoded from their first frame on by PyAV (FFmpeg): the frames that players show, in RGB.

Frames are shown upright, with the aspect that is displayed, without comb lines, in full range. HDR is mapped
to the ordinary range, and transparent parts lie on white. Pixels are uint8 (h w c).
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from utils.errors import UserError
from utils.files import is_text
from utils.pictures import composite
from utils.tone_mapping import HDR, lookup_table

# only formats that hold a video themselves: a playlist would open other files
FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,live_flv,ogg,gif,apng,ivf,nut,mxf,"
           "dv,rm,h264,hevc,m4v,mpegvideo,obu,av1,mjpeg")
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
FULL_RANGE = 2
HD = (1280, 720)       # players take an untagged video for BT.709 from this width or height on
MANY_PIXELS = 1e6      # of a frame, from which several threads decode
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}   # FFmpeg's own decoders leave transparency out
# lossless codecs, in which a recorder may have left the channel of transparency empty
LOSSLESS = ("huffyuv", "ffvhuff", "qtrle", "rawvideo", "utvideo", "magicyuv", "ffv1", "png")
CLEARLY = 0.1          # levels of 255, several times what two frames of the same picture differ by
STRANGEST = 8          # a pixel so many times as wide as high, or as high as wide, is a mistake


@dataclass(frozen=True)
class Packet:
    """What a container says of a frame before it is decoded; times are in its ticks."""

    pts: int | None    # when it is shown
    is_discard: bool   # other frames need it for their decoding, and it is not shown


def open_video(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a file and choose its default or first video stream; cover pictures are none.

    Raises UserError if it has none.
    """
    try:
        # PyAV takes only names that are text
        container = av.open(f"file:{path}" if is_text(path) else open(path, "rb"), metadata_errors="replace",
                            options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})
        streams = video_streams(container)
        if not streams:
            raise ValueError("no video stream")
        stream = next((s for s in streams if s.disposition & av.stream.Disposition.default), streams[0])
        if stream.codec_context is None:
            raise ValueError("no decoder")
    except (av.error.FFmpegError, ValueError) as error:
        raise UserError(f"{path}: is not a video that can be read. "
                        f"Remove it, or re-encode it as H.264.") from error
    is_large = stream.codec_context.width * stream.codec_context.height > MANY_PIXELS
    stream.codec_context.thread_count = min(4, os.cpu_count() or 1) if is_large else 1
    stream.thread_type = "AUTO"
    return container, stream


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Return the streams of moving pictures of a file."""
    return [stream for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic]


def decoded(container: av.container.InputContainer, stream: av.VideoStream, path: Path,
            packets: list[Packet] | None = None) -> Iterator[av.VideoFrame]:
    """Yield every frame that a player shows, in order, as it was recorded.

    `packets` gets every packet, without its content. Raises UserError where a frame cannot be decoded.
    Packets before the first frame may fail, because a recording may be cut anywhere.
    """
    decoder, num_frames = stream.codec_context, 0
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in ALPHA_DECODERS:
        decoder = av.CodecContext.create(ALPHA_DECODERS[decoder.name], "r")
    try:
        for packet in container.demux(stream):
            if packets is not None and packet.size:
                packets.append(Packet(packet.pts, packet.is_discard))
            try:
                frames = decoder.decode(packet)
            except av.error.FFmpegError:
                if num_frames:
                    raise
                continue
            num_frames += len(frames)
            yield from frames
    except av.error.FFmpegError as error:
        raise broken(path, num_frames) from error
    if not num_frames:
        raise UserError(f"{path}: is not a video that can be read. Remove it, or re-encode it as H.264.")


def broken(path: Path, number: int) -> UserError:
    return UserError(f"{path}: frame {number} cannot be decoded. Copy the file again or re-encode it.")


def read_film(path: Path) -> Iterator[Callable[[], np.ndarray]]:
    """Yield, for every frame that a player shows, a function that returns its pixels (h w c)."""
    container, stream = open_video(path)
    with container:
        to_pixels = None
        for frame in deinterlaced(decoded(container, stream, path)):
            to_pixels = to_pixels or converter(frame, stream)
            yield lambda frame=frame: to_pixels(frame)


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Yield as many frames as come in; from the first interlaced one on, their comb lines are removed."""
    push = None
    for frame in frames:
        if push is None and frame.interlaced_frame:
            push = filtering(frame, ("bwdif", {"mode": "send_frame", "deint": "interlaced"}))
        yield from push(frame) if push else [frame]
    yield from push(None) if push else []


def filtering(template: av.VideoFrame, *filters: tuple[str, dict[str, str]]) -> Callable:
    """Return a function that sends a frame like `template`, or None for the end, through a chain of filters.

    It returns the frames that come out.
    """
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(width=template.width, height=template.height, format=template.format,
                              time_base=template.time_base or Fraction(1, 1000))]
    nodes += [graph.add(name, **options) for name, options in filters] + [graph.add("buffersink")]
    for node, following in pairwise(nodes):
        node.link_to(following)
    graph.configure()

    def push(frame: av.VideoFrame | None) -> list[av.VideoFrame]:
        graph.push(frame)
        frames = []
        while True:
            try:
                frames.append(graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return frames

    return push


def converter(first: av.VideoFrame, stream: av.VideoStream) -> Callable[[av.VideoFrame], np.ndarray]:
    """Return a function from a frame to its pixels (h w c), all of the first frame's size and orientation."""
    graphs, size = {}, recorded_size(first, stream)
    turn = orientation(first)   # once: a frame that is asked stays until the next garbage collection

    def to_pixels(frame: av.VideoFrame) -> np.ndarray:
        colours = (frame.colorspace, frame.color_range, frame.color_trc)
        key = (frame.width, frame.height, frame.format.name, *colours)
        if key not in graphs:
            graphs[key] = filtering(frame, *to_rgb(frame, stream, size))
        pixels = graphs[key](frame)[0].to_ndarray()
        if pixels.shape[2] == 4:
            is_shown = is_filled(pixels[:, :, 3], stream)
            pixels = composite(pixels)[0] if is_shown else pixels[:, :, :3]
        return upright(pixels, turn)

    return to_pixels


def to_rgb(frame: av.VideoFrame, stream: av.VideoStream,
           size: tuple[int, int]) -> list[tuple[str, dict[str, str]]]:
    """Return the filters that bring a frame to `size` (width, height) and to full-range RGB, or RGBA."""
    scale = {"w": str(size[0]), "h": str(size[1]), "flags": "bicubic"}
    if not frame.format.is_rgb:
        scale |= {"in_color_matrix": matrix(frame), "in_range": "pc" if is_full_range(frame) else "tv"}
    if frame.color_trc in HDR:
        return [("scale", scale), ("format", {"pix_fmts": "gbrp10le"}),
                ("lut3d", {"file": lookup_table(frame.color_trc).name, "interp": "tetrahedral"}),
                ("format", {"pix_fmts": "rgb24"})]
    return [("scale", scale), ("format", {"pix_fmts": "rgba" if has_alpha(frame, stream) else "rgb24"})]


def matrix(frame: av.VideoFrame) -> str:
    """Return the matrix between YUV and RGB that players take; an untagged video's size decides."""
    by_size = "bt709" if frame.width >= HD[0] or frame.height >= HD[1] else "bt601"
    return MATRICES.get(frame.colorspace, by_size)


def is_full_range(frame: av.VideoFrame) -> bool:
    return frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")


def has_alpha(frame: av.VideoFrame, stream: av.VideoStream) -> bool:
    """Say whether a frame of a stream can have transparent parts."""
    # FFmpeg calls the 32-bit pixels of an uncompressed AVI bgra, but their fourth byte is unused: mostly 0
    is_raw_avi = stream.codec_context.name == "rawvideo" and stream.container.format.name == "avi"
    return frame.format.has_palette or (
        not is_raw_avi and any(part.is_alpha for part in frame.format.components))


def is_filled(alpha: np.ndarray, stream: av.VideoStream) -> bool:
    """Say whether somebody filled the channel of transparency of a frame.

    Some recorders store 32 bits a pixel and leave the 8 bits of transparency at 0. The frame would be
    invisible.
    """
    return bool(alpha.any()) or stream.codec_context.name not in LOSSLESS


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Return how much wider than high a pixel is; 1 where the file says nothing or nonsense."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and 1 / STRANGEST <= aspect <= STRANGEST else Fraction(1)


def recorded_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Return the size of a frame with square pixels, not turned yet: the side that is too short grows."""
    aspect = pixel_aspect(stream)
    return round(frame.width * max(aspect, 1)), round(frame.height * max(1 / aspect, 1))


def orientation(frame: av.VideoFrame) -> np.ndarray:
    """Return where a player shows the x and the y direction of a frame, by its display matrix (2 2)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2] / 65536


def upright(pixels: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Turn and mirror pixels (h w c) to the nearest right angle of `turn`."""
    if abs(turn[0, 1]) > abs(turn[0, 0]):   # x becomes y
        pixels, turn = pixels.swapaxes(0, 1), turn[::-1]
    return np.ascontiguousarray(pixels[::-1 if turn[1, 1] < 0 else 1, ::-1 if turn[0, 0] < 0 else 1])


def difference(before: list[np.ndarray], planes: list[np.ndarray]) -> float:
    """Return how much two frames differ: a bound of the mean absolute difference, in RGB levels of 255.

    Where every 16th line shows that two frames are clearly not the same, the rest is not looked at.
    """
    if [plane.shape for plane in before] != [plane.shape for plane in planes]:
        return 255.0
    for lines in (slice(None, None, 16), slice(None)):
        # a level of luma or chroma, in limited range, is at most 1.2 levels of the mean of R, G and B
        pairs = [(a[lines], b[lines], a.size) for a, b in zip(before, planes)]
        found = 1.2 * sum(int((np.maximum(a, b) - np.minimum(a, b)).sum()) / size for a, b, size in pairs)
        if found > CLEARLY:
            break
    return found


def planes_of(frame: av.VideoFrame) -> list[np.ndarray]:
    """Return the three planes (h w) of a frame in 8 bits."""
    if frame.format.name not in ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"):
        frame = frame.reformat(format="yuv444p")
    return [np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, :plane.width]
            for plane in frame.planes]
