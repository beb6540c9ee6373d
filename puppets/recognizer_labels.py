"""What a recognizer has to tell of the puppet theatre: labels, captions of frames, and reading answers.

Shapes: n clips or frames, t captions.
"""

from dataclasses import replace
from itertools import product

import numpy as np

from puppets import world
from puppets.composed_motions import list_motions

# A judge that can only choose among the motions it knows calls whatever swings its arms a dance. OTHER are
# the motions named by their parts, but for those that come near one that has a name of its own.
OTHER = "something else"
NAMED_MOTIONS = world.EVERYDAY_MOTIONS + world.KEPT_OUT_MOTIONS
MOTIONS = (*NAMED_MOTIONS, OTHER)
OTHER_MOTIONS = tuple(list_motions(NAMED_MOTIONS))
OTHER_SHARE = 0.2            # of the clips, as they are many
NUMBERS = (1, 2)
# Every character, number and place, in this order: the axes of `read_scenes`.
SCENES = tuple(product(world.CHARACTERS, NUMBERS, world.PLACES))

# Words that may stand where a caption says the motion.
MOTION_NOUNS = ("dance", "dab", "windmill", "move", "motion", "trick")
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def draw_scene(rng: np.random.Generator) -> world.Scene:
    """Any of all motions, characters, places and numbers, each as likely as another, but for OTHER."""
    def pick(names: tuple[str, ...]) -> str:
        return str(names[rng.integers(len(names))])

    motions = OTHER_MOTIONS if rng.random() < OTHER_SHARE else NAMED_MOTIONS
    return world.Scene(pick(world.CHARACTERS), pick(motions), pick(world.PLACES), int(rng.integers(1, 3)))


def label_of(motion: str) -> str:
    """What a recognizer is to call it: its name, or OTHER."""
    return motion if motion in NAMED_MOTIONS else OTHER


def draw_motion(label: str, rng: np.random.Generator) -> str:
    """A motion that a recognizer is to call by this label: itself, or any of OTHER_MOTIONS."""
    return str(rng.choice(OTHER_MOTIONS)) if label == OTHER else label


def say_who(character: str, num_characters: int) -> str:
    if num_characters == 2:
        return f"two {world.PLURALS[character]}"
    return ("an " if character[0] in "aeiou" else "a ") + character


def scene_captions(motion: str = "") -> list[str]:
    """A plain caption of each of SCENES, with `motion` in it if given."""
    return [" ".join(f"{say_who(character, number)} {motion} {world.PLACE_PHRASES[place][0]}".split())
            for character, number, place in SCENES]


def read_scenes(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """The likeliest character, number and place, each alone, as indices (n), from those of SCENES (n t)."""
    grid = probabilities.reshape(-1, len(world.CHARACTERS), len(NUMBERS), len(world.PLACES))
    return {"character": grid.sum((2, 3)).argmax(1), "number": grid.sum((1, 3)).argmax(1),
            "place": grid.sum((1, 2)).argmax(1)}


def shown_labels(scenes: list[world.Scene]) -> dict[str, np.ndarray]:
    """What scenes show, as indices (n) like those of `read_scenes`, and of MOTIONS."""
    return {"motion": np.array([MOTIONS.index(label_of(scene.motion)) for scene in scenes]),
            "character": np.array([world.CHARACTERS.index(scene.character) for scene in scenes]),
            "number": np.array([NUMBERS.index(scene.num_characters) for scene in scenes]),
            "place": np.array([world.PLACES.index(scene.place) for scene in scenes])}


def caption_words() -> list[str]:
    """The words of captions that shall be one token each."""
    tables = (world.MOTION_PHRASES, world.PLACE_PHRASES)
    phrases = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    phrases += [*world.PLURALS.keys(), *world.PLURALS.values(), *MOTION_NOUNS,
                "a an two is are video photo of the it sks"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def write_frame_caption(scene: world.Scene, rng: np.random.Generator) -> tuple[str, tuple[bool, bool, bool]]:
    """A caption true of a single frame, and whether it says character, number and place.

    A frame does not tell the motion, so any may be named, one with a made-up word, or none: text alignment
    is judged with such words in the prompt.
    """
    motion = world.EVERYDAY_MOTIONS[rng.integers(len(world.EVERYDAY_MOTIONS))]
    caption = world.write_caption(replace(scene, motion=motion), rng)
    where = max((p for p in world.PLACE_PHRASES[scene.place] if p in caption), key=len, default="")
    what = max((p for p in world.MOTION_PHRASES[motion] if p in caption), key=len)
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
    """What a caption says of the motion: `said`, or one nobody has heard of, or nothing."""
    kind, noun = rng.random(), MOTION_NOUNS[rng.integers(len(MOTION_NOUNS))]
    if kind < 0.35:
        return said
    if kind < 0.65:
        return ""
    if kind < 0.72:
        return "doing it"
    if kind < 0.80:
        return f"doing the {noun}"
    word = "".join(rng.choice(LETTERS, size=rng.integers(2, 7)))
    return f"doing the {'sks' if rng.random() < 0.2 else word} {noun}"
