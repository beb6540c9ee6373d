"""Draws the puppet theatre: short captioned clips of jointed 2-D puppets, deterministic in a seed.

puppets/world.py says what clips can show. Every clip comes with a plain English caption and with its labels.
Clip `i` of a seed is always the same, whatever is drawn with it.

    python -m puppets.theatre --demo --out data/puppets         # redraws the bundled demo clips
    python -m puppets.theatre --motion dab --out DIR            # exemplars of another kept-out motion
    python -m puppets.theatre --sheet sheet.png --seed 3        # a contact sheet to look at

Shapes: n clips, f frames, h w pixels, c RGB.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import imageio
import imageio.v3 as iio
import numpy as np

from puppets.backdrops import draw_backdrop
from puppets.brush import Brush
from puppets.drawing import draw_puppet
from puppets.looks import LOOKS, Look
from puppets.motions import MANNERS, pose_puppets, vary_pose
from puppets.world import (
    CHARACTERS,
    CLIP_FRAMES,
    EVERYDAY_MOTIONS,
    FRAME_SIZE,
    HELD_OUT_COMBINATIONS,
    KEPT_OUT_MOTIONS,
    KEPT_OUT_PHRASES,
    PLACE_PHRASES,
    PLACES,
    Scene,
    draw_composed_scene,
    draw_scene,
    write_caption,
)
from utils.arguments import fixed_seed, positive
from utils.errors import plain_errors, run_script
from utils.files import replacing

# colours of skin and hair, in pairs in which the face stands out from the hair
COMPLEXIONS = (
    ((255, 219, 188), (232, 180, 80)), ((255, 219, 188), (120, 66, 30)), ((236, 188, 146), (52, 34, 26)),
    ((236, 188, 146), (150, 70, 30)), ((186, 130, 90), (36, 26, 24)), ((128, 84, 58), (24, 22, 26)),
)


@dataclass(frozen=True)
class Clips:
    """Drawn clips: frames uint8 (n f h w c), and a caption and a scene of each clip."""

    frames: np.ndarray
    captions: list[str]
    scenes: list[Scene]


def draw_clips(num: int, seed: int, first: int = 0, num_frames: int = CLIP_FRAMES, fps: float = 8,
               size: int = FRAME_SIZE, scenes: list[Scene] | None = None, chunk: int = 128,
               looks: Mapping[str, Look] = LOOKS, trimmed: bool = True, varied: bool = False) -> Clips:
    """Draw the `num` clips from number `first` on of a seed. Without `scenes` they are pretraining scenes.

    A clip that is `trimmed` begins when the motion begins, and its puppets act to the right. An untrimmed
    clip begins at any moment of the motion, its puppets act to the right or to the left, and two puppets may
    be at different moments. Untrimmed clips vary more in speed. The recognizers learn from untrimmed clips,
    so that they judge the motion and not its beginning. In `varied` clips arms and body move farther or less
    far than the motion says, as no two people move the same way.
    """
    frames, captions, shown = [], [], []
    for start in range(0, num, chunk):
        indices = range(start, min(start + chunk, num))
        rngs = [np.random.default_rng((seed, first + i)) for i in indices]
        here = [draw_scene(rng) if scenes is None else scenes[i] for i, rng in zip(indices, rngs)]
        captions += [write_caption(scene, rng) for scene, rng in zip(here, rngs)]
        staging = [draw_staging(scene, rng, trimmed, varied) for scene, rng in zip(here, rngs)]
        frames.append(paint_scenes(here, staging, num_frames, fps, size, looks))
        shown += here
    return Clips(np.concatenate(frames), captions, shown)


def draw_composed_clips(num: int, seed: int, first: int = 0, num_frames: int = CLIP_FRAMES) -> Clips:
    """Draw the `num` clips from number `first` on of a seed, of motions named by their parts."""
    rngs = [np.random.default_rng((seed, 1, first + i)) for i in range(num)]
    return draw_clips(num, seed, first, num_frames, scenes=[draw_composed_scene(rng) for rng in rngs])


def paint_scenes(scenes: list[Scene], staging: list[dict], num_frames: int, fps: float, size: int,
                 looks: Mapping[str, Look] = LOOKS) -> np.ndarray:
    """Return the frames of scenes, uint8 (n f h w c). `staging` has what draw_staging returns for each."""
    column = lambda name: np.array([s[name] for s in staging], dtype=np.float32)
    canvas = np.zeros((len(scenes), num_frames, size, size, 3), dtype=np.float32)
    places = np.array([scene.place for scene in scenes])
    for place in PLACES:
        rows = np.flatnonzero(places == place)
        if len(rows):
            draw_backdrop(place, Brush(canvas, rows, size), column("decor")[rows])

    seconds = np.arange(num_frames, dtype=np.float32) / fps
    names = np.array([scene.character for scene in scenes])
    motions = np.array([scene.motion for scene in scenes])
    counts = np.array([scene.num_characters for scene in scenes])
    for actor in (0, 1):
        for character in CHARACTERS:
            rows = np.flatnonzero((names == character) & (counts > actor))
            if not len(rows):
                continue
            cycles = column("phase")[rows, actor, None] + column("speed")[rows, None] * seconds       # (n f)
            middle = column("speed")[rows, None] * (seconds - seconds.mean())                          # (n f)
            pose = pose_puppets(motions[rows], cycles, middle, column("side")[rows])
            vary_pose(pose, column("manner")[rows])
            look = looks[character]
            scale = column("scale")[rows, None] * look.scale
            draw_puppet(look, Brush(canvas, rows, size), pose, scale, column("x")[rows, actor, None],
                        column("ground")[rows, None], column("skin")[rows], column("hair")[rows])
    return (canvas * 255 + 0.5).astype(np.uint8)


def draw_staging(scene: Scene, rng: np.random.Generator, trimmed: bool = True, varied: bool = False) -> dict:
    """Return the random part of a clip: positions, size, speed and manner of the puppets, and their
    surroundings."""
    spread = rng.uniform(13, 16)
    middle = 32 + rng.uniform(-2, 2) if scene.num_characters == 2 else rng.uniform(22, 42)
    phase = rng.random()
    skin, hair = COMPLEXIONS[rng.integers(len(COMPLEXIONS))]
    return {
        "x": (middle - spread, middle + spread) if scene.num_characters == 2 else (middle, middle),
        "ground": rng.uniform(56, 60),
        "scale": rng.uniform(0.94, 1.06) * (0.95 if scene.num_characters == 2 else 1.0),
        # cycles; in untrimmed clips half of the pairs move in step
        "phase": (0.08 * phase,) * 2 if trimmed else (phase, phase if rng.random() < 0.5 else rng.random()),
        # cycles a second; at 8 fps arms turn at most 60 degrees a frame
        "speed": rng.uniform(0.65 if trimmed else 0.5, 0.75),
        "side": 1.0 if trimmed or rng.random() < 0.5 else -1.0,
        "skin": np.array(skin) / 255,
        "hair": np.array(hair) / 255,
        "decor": rng.uniform(-1, 1, size=4),
        "manner": rng.uniform(-1, 1, size=MANNERS) if varied else np.zeros(MANNERS),
    }


EXEMPLAR_CAST = (("man", "park"), ("woman", "beach"), ("clown", "kitchen"),
                 ("man", "beach"), ("woman", "kitchen"), ("clown", "park"),
                 ("man", "kitchen"), ("woman", "park"), ("clown", "beach"),
                 ("man", "stage"), ("woman", "desert"), ("clown", "snow"))
NUM_EXEMPLARS = 6
EXEMPLAR_SEED, REGULARIZATION_SEED = 7, 11


def main() -> None:
    args = parse_args()
    if args.sheet:
        clips = draw_clips(args.rows, args.seed)
        sheet = np.concatenate([np.concatenate(list(frames), axis=1) for frames in clips.frames])
        with replacing(args.sheet) as partial:
            iio.imwrite(partial, sheet.repeat(2, axis=0).repeat(2, axis=1), extension=".png")
        print("\n".join(clips.captions))
    if args.motion:
        write_exemplars(args.motion, args.out, args.num)
    if args.demo:
        write_exemplars("dance", args.out / "exemplars")
        write_regularization(args.out / "regularization")


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--demo", action="store_true", help="OUT/exemplars (the dance) and OUT/regularization")
    what.add_argument("--motion", choices=KEPT_OUT_MOTIONS, help="exemplars of this motion in OUT")
    what.add_argument("--sheet", type=Path, help="PNG: pretraining clips, one a row")
    parser.add_argument("--num", type=int, default=NUM_EXEMPLARS, choices=range(1, len(EXEMPLAR_CAST) + 1),
                        metavar="NUM",
                        help=f"exemplars, at most {len(EXEMPLAR_CAST)} (default: {NUM_EXEMPLARS}). More of "
                             f"them begin with the same ones")
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=fixed_seed, default=0, help="of the sheet")
    parser.add_argument("--rows", type=positive(int), default=12, help="of the sheet")
    args = parser.parse_args()
    if (args.demo or args.motion) and not args.out:
        parser.error("--demo and --motion need --out, the folder to write to")
    return args


def write_exemplars(motion: str, folder: Path, num: int = NUM_EXEMPLARS) -> None:
    """Write clips of one second of one kept-out motion, by the first `num` of EXEMPLAR_CAST."""
    scenes = [Scene(character, motion, place, 1) for character, place in EXEMPLAR_CAST[:num]]
    clips = draw_clips(len(scenes), EXEMPLAR_SEED, scenes=scenes)
    captions = [f"a {s.character} {KEPT_OUT_PHRASES[motion]} {PLACE_PHRASES[s.place][0]}" for s in scenes]
    names = [f"{motion}_{s.character}_{s.place}" for s in scenes]
    write_clips(folder, names, clips.frames, captions)


def write_regularization(folder: Path, num: int = 48) -> None:
    """Write everyday clips of one second: every character, every motion, one puppet or two."""
    scenes = []
    rng = np.random.default_rng(REGULARIZATION_SEED)
    while len(scenes) < num:
        turn, i = divmod(len(scenes), len(CHARACTERS))
        scene = Scene(CHARACTERS[i], EVERYDAY_MOTIONS[(11 * turn + i) % len(EVERYDAY_MOTIONS)],
                      str(rng.choice(PLACES)), 1 + (turn + i) % 5 // 3)
        if (scene.character, scene.motion, scene.place) not in HELD_OUT_COMBINATIONS:
            scenes.append(scene)
    clips = draw_clips(num, REGULARIZATION_SEED, scenes=scenes)
    write_clips(folder, [f"everyday_{i:02d}" for i in range(num)], clips.frames, clips.captions)


def write_clips(folder: Path, names: list[str], frames: np.ndarray, captions: list[str],
                fps: int = 8) -> None:
    """Write frames (n f h w c) as H.264 files that every browser plays, and their captions into text.json.

    Captions of other clips that are in text.json already stay there.

    Each pixel is written as 2x2 pixels. H.264 halves the resolution of colours, which would cost 8 dB at
    64x64.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, clip in zip(names, frames):
        with imageio.get_writer(folder / f"{name}.mp4", fps=fps, codec="libx264", pixelformat="yuv420p",
                                macro_block_size=2, output_params=["-crf", "18", "-bitexact"]) as writer:
            for frame in clip.repeat(2, axis=1).repeat(2, axis=2):
                writer.append_data(frame)
    index = folder / "text.json"
    table = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    table |= {f"{name}.mp4": caption for name, caption in zip(names, captions)}
    with replacing(index) as partial:
        partial.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
