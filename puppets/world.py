"""What the puppet theatre can show, and how captions say it: characters, places, motions, scenes.

Ten characters, seven places, one or two of a kind, eight everyday motions. Three more motions are kept out
of the training of the bundled base, so that they can be taught to it. The base also learns motions that a
caption names by their parts (puppets/composed_motions.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from string import ascii_lowercase

import numpy as np

from puppets.composed_motions import COMPOSED_MOTIONS

CLIP_FRAMES, FRAME_SIZE = 8, 64   # frames of a clip; width and height of a frame in pixels

PLURALS = {
    "man": "men", "woman": "women", "toddler": "toddlers", "robot": "robots", "nurse": "nurses",
    "firefighter": "firefighters", "clown": "clowns", "alien": "aliens", "bear": "bears", "cat": "cats",
}
CHARACTERS = tuple(PLURALS)

PLACE_PHRASES = {
    "park": ("in the park", "in a park", "in a green park"),
    "beach": ("on the beach", "at the beach", "on a sandy beach"),
    "snow": ("in the snow", "in the snow", "on a snowy day"),
    "desert": ("in the desert", "in a desert", "in the hot desert"),
    "night": ("at night", "at night", "under the moon"),
    "kitchen": ("in the kitchen", "in a kitchen", "in the kitchen"),
    "stage": ("on a stage", "on stage", "on the stage"),
}
PLACES = tuple(PLACE_PHRASES)

MOTION_PHRASES = {
    "standing": ("standing", "standing still", "just standing"),
    "walking": ("walking", "walking along", "taking a walk"),
    "waving": ("waving", "waving hello", "waving a hand"),
    "jumping": ("jumping", "jumping up and down", "jumping up"),
    "squatting": ("squatting", "doing squats", "squatting down"),
    "bowing": ("bowing", "bowing down", "taking a bow"),
    "jumping jacks": ("doing jumping jacks", "doing jumping jacks", "exercising with jumping jacks"),
    "kicking": ("kicking", "kicking a leg", "doing kicks"),
}
EVERYDAY_MOTIONS = tuple(MOTION_PHRASES)

# Never drawn for pretraining. The captions of exemplars call the new motion `V*`.
KEPT_OUT_PHRASES = {
    "dance": "doing the V* dance",
    "dab": "doing the V* dab",
    "windmill": "doing the V* windmill",
}
KEPT_OUT_MOTIONS = tuple(KEPT_OUT_PHRASES)

COMPOSED_PHRASES = {motion: f"moving with {motion}" for motion in COMPOSED_MOTIONS}

# Combinations of character, motion and place that are never drawn for pretraining, to test composition. Every
# 11th is held out, so that each pair of the three is still drawn.
HELD_OUT_COMBINATIONS = frozenset(
    (character, motion, place)
    for i, character in enumerate(CHARACTERS)
    for j, motion in enumerate(EVERYDAY_MOTIONS)
    for k, place in enumerate(PLACES)
    if (i + 3 * j + 5 * k) % 11 == 0
)


@dataclass(frozen=True)
class Scene:
    """What a clip shows."""

    character: str
    motion: str
    place: str
    num_characters: int


def draw_scene(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """Draw a scene with an everyday motion: one that pretraining may show, or a held-out combination."""
    while True:
        scene = Scene(str(rng.choice(CHARACTERS)), str(rng.choice(EVERYDAY_MOTIONS)), str(rng.choice(PLACES)),
                      1 if rng.random() < 0.6 else 2)
        if ((scene.character, scene.motion, scene.place) in HELD_OUT_COMBINATIONS) == held_out:
            return scene


def draw_composed_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene with a motion that is named by its parts."""
    return replace(draw_scene(rng), motion=COMPOSED_MOTIONS[rng.integers(len(COMPOSED_MOTIONS))])


def write_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return a caption of a scene, worded in one of several ways. One in 25 leaves out the place."""
    who = say_who(scene.character, scene.num_characters)
    if scene.motion in KEPT_OUT_PHRASES:
        what = KEPT_OUT_PHRASES[scene.motion]
    elif scene.motion in COMPOSED_PHRASES:
        what = COMPOSED_PHRASES[scene.motion]
    elif scene.motion in MOTION_PHRASES:
        what = str(rng.choice(MOTION_PHRASES[scene.motion]))
    else:   # of the recognizers' examples only
        what = f"moving {scene.motion}"
    where = str(rng.choice(PLACE_PHRASES[scene.place]))
    style = rng.random()
    if style < 0.70:
        return f"{who} {what} {where}"
    if style < 0.82:
        return f"{who} {'is' if scene.num_characters == 1 else 'are'} {what} {where}"
    if style < 0.90:
        return f"a video of {who} {what} {where}"
    if style < 0.96:
        return f"{where}, {who} {what}"
    return f"{who} {what}"


def say_who(character: str, num_characters: int) -> str:
    """Return the subject of a caption: "a man", "an alien", "two robots"."""
    if num_characters == 2:
        return f"two {PLURALS[character]}"
    return f"{'an' if character[0] in 'aeiou' else 'a'} {character}"


def phrase_in(caption: str, phrases: Iterable[str]) -> str:
    """Return the longest of `phrases` that stands in `caption`; empty if none does."""
    return max((phrase for phrase in phrases if phrase in caption), key=len, default="")


def make_up_word(rng: np.random.Generator, shortest: int, longest: int) -> str:
    """Return a word of random letters, `shortest` to `longest` letters long."""
    return "".join(rng.choice(list(ascii_lowercase), size=rng.integers(shortest, longest + 1)))


def caption_words(*more: str) -> list[str]:
    """Return, sorted, every word that a caption of an everyday motion can have, and the words of `more`."""
    rows = [*MOTION_PHRASES.values(), *PLACE_PHRASES.values()]
    phrases = [phrase for row in rows for phrase in row]
    phrases += [*PLURALS, *PLURALS.values(), "a an two is are video of", *more]
    return sorted({word for phrase in phrases for word in phrase.split()})
