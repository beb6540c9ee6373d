"""What the recognizers of the puppet theatre tell apart: labels, captions of frames, and reading answers.

Shapes: n clips or frames, f frames of a clip, t captions, d width of CLIP's embeddings.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from einops import rearrange

from evaluation.recognizing import ImageTextModel, even_indices, image_embeddings, text_embeddings
from puppets import world
from puppets.composed_motions import list_blends, list_motions
from puppets.motions import POSERS

# A recognizer that knows only motions with names calls everything that swings its arms a dance. So it also
# learns OTHER: the motions named by their parts, except those that come near a motion with a name of its own,
# and blends of two motions.
OTHER = "something else"
NAMED_MOTIONS = world.EVERYDAY_MOTIONS + world.KEPT_OUT_MOTIONS
MOTIONS = (*NAMED_MOTIONS, OTHER)
OTHER_MOTIONS = tuple(list_motions(NAMED_MOTIONS))
BLENDS = list_blends(tuple(name for name in NAMED_MOTIONS if name not in ("walking", "bowing", "kicking")),
                     OTHER_MOTIONS[::len(OTHER_MOTIONS) // 24])   # 24 of them, or a few more
POSERS |= BLENDS
BLENDED_MOTIONS = tuple(BLENDS)
OTHER_SHARE = 0.2            # of the clips; a twelfth would be too few for so many motions
BLENDED_SHARE = 0.05         # of the clips, within OTHER_SHARE. With 0.15 too much became OTHER
NUMBERS = (1, 2)
# Every character, number and place, in this order, which `read_scenes` relies on.
SCENES = tuple(product(world.CHARACTERS, NUMBERS, world.PLACES))

# Words that may stand where a caption says the motion.
MOTION_NOUNS = ("dance", "dab", "windmill", "move", "motion", "trick")


def draw_any_scene(rng: np.random.Generator) -> world.Scene:
    """Draw a scene of any motion, kept-out ones too. All are equally likely, except OTHER (OTHER_SHARE)."""
    def pick(names: tuple[str, ...]) -> str:
        return str(names[rng.integers(len(names))])

    draw = rng.random()
    motions = (BLENDED_MOTIONS if draw < BLENDED_SHARE else OTHER_MOTIONS if draw < OTHER_SHARE
               else NAMED_MOTIONS)
    return world.Scene(pick(world.CHARACTERS), pick(motions), pick(world.PLACES), int(rng.integers(1, 3)))


def label_of(motion: str) -> str:
    """Return what a recognizer shall call a motion: its name, or OTHER."""
    return motion if motion in NAMED_MOTIONS else OTHER


def draw_motion(label: str, rng: np.random.Generator) -> str:
    """Return a motion that a recognizer shall call `label`: the motion of that name. For OTHER, return a
    motion named by its parts or a blend, each in half of the draws."""
    others = OTHER_MOTIONS if rng.random() < 0.5 else BLENDED_MOTIONS
    return str(rng.choice(others)) if label == OTHER else label


def scene_captions(motion: str = "") -> list[str]:
    """Return a plain caption of each of SCENES, with `motion` in it if given."""
    return [" ".join(f"{world.say_who(character, number)} {motion} {world.PLACE_PHRASES[place][0]}".split())
            for character, number, place in SCENES]


def read_scenes(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return the likeliest character, number and place, each by itself, as indices (n).

    `probabilities` (n t) are those of the captions of SCENES.
    """
    grid = probabilities.reshape(-1, len(world.CHARACTERS), len(NUMBERS), len(world.PLACES))
    return {"character": grid.sum((2, 3)).argmax(1), "number": grid.sum((1, 3)).argmax(1),
            "place": grid.sum((1, 2)).argmax(1)}


@torch.no_grad()
def match_captions(clip: ImageTextModel, clips: Sequence[np.ndarray], captions: Sequence[str],
                   num_frames: int = 4) -> np.ndarray:
    """Return the probabilities (n t) that a caption, and none of the others, is that of a clip (f h w c).

    They come from the mean similarity of the caption to `num_frames` frames at even distances.
    """
    texts = text_embeddings(clip, captions)                                               # (t d)
    chosen = [frames[index] for frames in clips for index in even_indices(len(frames), num_frames)]
    images = rearrange(image_embeddings(clip, chosen), "(n f) d -> n f d", f=num_frames)
    similarity = (images @ texts.T).mean(1)                                               # (n t)
    return (similarity * clip.model.logit_scale.exp().cpu()).softmax(-1).numpy()


def shown_labels(scenes: list[world.Scene]) -> dict[str, np.ndarray]:
    """Return the labels of scenes as indices (n): the motion in MOTIONS, the rest as in `read_scenes`."""
    return {"motion": np.array([MOTIONS.index(label_of(scene.motion)) for scene in scenes]),
            "character": np.array([world.CHARACTERS.index(scene.character) for scene in scenes]),
            "number": np.array([NUMBERS.index(scene.num_characters) for scene in scenes]),
            "place": np.array([world.PLACES.index(scene.place) for scene in scenes])}


def recognizer_words() -> list[str]:
    """Return the words of captions that are one token each, sorted."""
    return world.caption_words(*MOTION_NOUNS, "photo the it sks")


def write_frame_caption(scene: world.Scene, rng: np.random.Generator) -> tuple[str, tuple[bool, bool, bool]]:
    """Return a caption that is true of a single frame, and whether it says character, number and place.

    A frame does not show the motion. The caption names any motion, a made-up one, or none, because text
    alignment is judged with such words in the prompt.
    """
    motion = world.EVERYDAY_MOTIONS[rng.integers(len(world.EVERYDAY_MOTIONS))]
    caption = world.write_caption(replace(scene, motion=motion), rng)
    where = world.phrase_in(caption, world.PLACE_PHRASES[scene.place])
    what = world.phrase_in(caption, world.MOTION_PHRASES[motion])
    caption = caption.replace(what, write_motion(what, rng))
    says_who, leave_out = True, rng.random()
    if where and leave_out < 0.15:
        caption, where = caption.replace(where, "").replace(",", ""), ""
    elif where and leave_out < 0.22:
        caption, says_who = where, False
    if rng.random() < 0.1:
        caption = "a photo of " + caption.removeprefix("a video of ")
    return " ".join(caption.split()), (says_who, says_who, bool(where))


def write_motion(said: str, rng: np.random.Generator) -> str:
    """Return the words for the motion in a caption: `said`, a made-up motion, or nothing."""
    kind, noun = rng.random(), MOTION_NOUNS[rng.integers(len(MOTION_NOUNS))]
    if kind < 0.35:
        return said
    if kind < 0.65:
        return ""
    if kind < 0.72:
        return "doing it"
    if kind < 0.80:
        return f"doing the {noun}"
    word = world.make_up_word(rng, 2, 6)
    return f"doing the {'sks' if rng.random() < 0.2 else word} {noun}"
