"""Arranges the videos of a folder in one animated GIF, such as the picture in the README.

    python -m puppets.contact_sheet outputs/dance docs/demo.gif --only "sks dance" \\
        --exemplars data/puppets/exemplars
"""

import argparse
from pathlib import Path

from rendering.gallery import list_videos
from rendering.video_grid import write_grid
from utils.arguments import positive
from utils.errors import UserError, plain_errors, run_script


def main() -> None:
    args = parse_args()
    videos = [video for video in list_videos(args.videos) if args.only in video["prompt"]][: args.most]
    if not videos:
        raise UserError(f"{args.videos}: holds no videos whose prompt has {args.only!r}.")
    exemplars = sorted(args.exemplars.glob("*.mp4")) if args.exemplars else []
    write_grid([args.videos / video["file"] for video in videos], args.out, args.columns,
               (args.side, args.side), exemplars)
    print(f"{args.out}: {len(videos)} videos, {args.out.stat().st_size:,} bytes")


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    parser.add_argument("videos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--columns", type=positive(int), default=4)
    parser.add_argument("--side", type=positive(int), default=128, help="pixels of each video")
    parser.add_argument("--only", default="", help="only videos whose prompt has these words in it")
    parser.add_argument("--exemplars", type=Path,
                        help="folder of .mp4 clips, some of which make a column to the left")
    parser.add_argument("--most", type=positive(int), default=12,
                        help="largest number of videos (default: 12)")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
