"""Which files are videos and pictures, and whether one is whole, told from names and first bytes alone."""

from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".ogv", ".ts",
                  ".mts", ".m2ts", ".mpg", ".mpeg", ".gif", ".apng")
CLIPS_OF_A_FOLDER = ", ".join(VIDEO_SUFFIXES) + ", animated .png, .webp"   # for messages
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")   # .png and .webp may also be animated
PICTURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM")      # how files that Pillow reads begin; also WebP
ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"sidx",
             b"uuid", b"mfra", b"meta", b"udta", b"pdin", b"ssix", b"prft", b"emsg", b"PICT")
MAX_FPS = 1000   # beyond it, containers and decoders round
UNKNOWN_LENGTH = 0xFFFFFFFF   # of an AVI that was written into a pipe
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_clip(path: Path) -> bool:
    """Say whether the file holds moving pictures, by its suffix; of .png and .webp the content decides."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES and is_animated(path)


def is_image(path: Path) -> bool:
    """Say whether the file is a still picture, by its suffix; of .png and .webp the content decides."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_animated(path)


def is_animated(path: Path) -> bool:
    """Say whether a PNG or WebP file announces an animation; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(65_536)
    except OSError:
        return False
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2) if len(head) > 20 else False
    # an animated PNG has the chunk acTL before its first pixels, which lie in IDAT
    return head[:4] == b"\x89PNG" and b"acTL" in head.partition(b"IDAT")[0]


def is_picture_file(path: Path) -> bool:
    """Say whether the content, whatever the name, is a still or animated picture that Pillow reads."""
    with open(path, "rb") as file:
        head = file.read(12)
    return head.startswith(PICTURES) or head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def is_cut_off(path: Path) -> bool:
    """Say whether the file ends before its container does; False if the container is silent or unknown."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(64)
        if head[4:8] in ISO_BOXES:                       # mp4, mov
            return _iso_end(file, size) > size
        if head[:4] == b"RIFF":                          # avi, webp
            length = int.from_bytes(head[4:8], "little")
            return length != UNKNOWN_LENGTH and 8 + length > size
        if head[:4] == EBML:                             # mkv, webm
            return _matroska_end(head) > size
    return False


def _iso_end(file, size: int) -> int:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if header[4:8] not in ISO_BOXES:   # a tag or a camera's own data, behind the last box of the video
            return size
        if length == 0:    # reaches to the end of the file
            return size
        if length == 1:    # a 64-bit length follows
            length = int.from_bytes(header[8:16], "big")
        position += max(length, 8)
    return position


def _matroska_end(head: bytes) -> int:
    length, position = _vint(head, 4)
    position += length                                   # of the EBML header; the segment is all the rest
    if head[position : position + 4] != SEGMENT:
        return 0
    length, position = _vint(head, position + 4)
    return position + length


def _vint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number of variable length at `position` and where it ends; all ones, unknown, count as 0."""
    first = data[position] if position < len(data) else 0
    num_bytes = 9 - first.bit_length()
    mask = (1 << 7 * num_bytes) - 1
    number = int.from_bytes(data[position : position + num_bytes], "big") & mask
    return (0 if number == mask else number), position + num_bytes
