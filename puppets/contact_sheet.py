"""Arranges the videos of a folder in one animated GIF, such as the picture in the README.

    python -m puppets.contact_sheet outputs/dance docs/demo.gif --columns 4 --side 128 [--only "V* dance"]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from rendering.gallery import list_videos
from utils.errors import UserError, plain_errors, run_script
from utils.video import probe, read_frames

GAP = 4   # pixels between videos


def main() -> None:
    args = parse_args()
    videos = [video for video in list_videos(args.videos) if args.only in video["prompt"]][: args.most]
    if not videos:
        raise UserError(f"{args.videos}: holds no videos whose prompt has {args.only!r}.")
    paths = [args.videos / video["file"] for video in videos]
    num_frames = min(probe(path).num_frames for path in paths)
    tiles = [read_frames(path, range(num_frames), (args.side, args.side)) for path in paths]   # (f h w c)
    sheet = [Image.fromarray(frame) for frame in arrange(np.stack(tiles), args.columns)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    duration = round(1000 / probe(paths[0]).fps)
    sheet[0].save(args.out, save_all=True, append_images=sheet[1:], duration=duration, loop=0, optimize=True)
    print(f"{args.out}: {len(videos)} videos, {args.out.stat().st_size:,} bytes")


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    parser.add_argument("videos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--side", type=int, default=128, help="pixels of each video")
    parser.add_argument("--only", default="", help="only videos whose prompt has these words in it")
    parser.add_argument("--most", type=int, default=12, help="largest number of videos (default: 12)")
    return parser.parse_args()


def arrange(videos: np.ndarray, columns: int) -> np.ndarray:
    """Return frames (f h w c) of a grid of videos (n f h w c), with white between them."""
    num, num_frames, height, width, channels = videos.shape
    rows = -(-num // columns)
    size = rows * (height + GAP) - GAP, columns * (width + GAP) - GAP
    grid = np.full((num_frames, *size, channels), 255, np.uint8)
    for index, video in enumerate(videos):
        top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        grid[:, top : top + height, left : left + width] = video
    return grid


if __name__ == "__main__":
    run_script(main)
