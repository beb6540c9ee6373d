"""Whether a video file is whole, by the lengths its container states: decord reads a cut-off file in part."""

from pathlib import Path

ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"sidx",
             b"uuid")
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_cut_off(path: Path) -> bool:
    """Say whether the file ends before its container does; False if the container is silent or unknown."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(64)
        if head[4:8] in ISO_BOXES:                       # mp4, mov
            return _iso_end(file, size) > size
        if head[:4] == b"RIFF":                          # avi
            return 8 + int.from_bytes(head[4:8], "little") > size
        if head[:4] == EBML:                             # mkv, webm
            return _matroska_end(head) > size
    return False


def _iso_end(file, size: int) -> int:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
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
