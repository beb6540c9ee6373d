"""The captions of pretraining: the words its tokenizer knows, and what a caption says as labels."""

import numpy as np
import torch

from data import puppet_theatre as world
from data.puppet_free_motions import FREE_MOTIONS

# Words of the tokenizer that no caption of pretraining has: the placeholder, names of motions to be taught.
EXTRA_WORDS = ("sks", "dance", "dab", "windmill", "three", "dancing")
NAMED_MOTIONS = (*world.EVERYDAY_MOTIONS, *FREE_MOTIONS)
LABEL_COUNTS = (len(world.CHARACTERS), 2, len(NAMED_MOTIONS) + 1, len(world.PLACES) + 1)


def world_words() -> list[str]:
    """Every word a caption of pretraining can have, and EXTRA_WORDS."""
    tables = (world.MOTION_PHRASES, world.PLACE_PHRASES)
    phrases = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    phrases += [*world.PLURALS.keys(), *world.PLURALS.values(), "a an two is are video of"]
    return sorted({word for phrase in phrases for word in phrase.split()} | set(EXTRA_WORDS))


def write_training_caption(scene: world.Scene, rng: np.random.Generator) -> tuple[str, bool]:
    """A caption, and whether it says the motion: everyday ones have a made-up word there in one of twenty.

    So a word the model has never met (`sks`, later) does not shake the rest of what the caption says.
    """
    caption = world.write_caption(scene, rng)
    made_up = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=rng.integers(3, 6)))
    if rng.random() >= 0.05 or made_up in EXTRA_WORDS or scene.motion in FREE_MOTIONS:
        return caption, True
    phrase = max((p for p in world.MOTION_PHRASES[scene.motion] if p in caption), key=len)
    return caption.replace(phrase, f"doing the {made_up}"), False


def caption_labels(scenes, captions, says_motion) -> torch.Tensor:
    """Character, number, motion, place as integers (b 4); the last of motions and of places means unsaid."""
    rows = []
    for scene, caption, says in zip(scenes, captions, says_motion):
        placed = any(phrase in caption for phrase in world.PLACE_PHRASES[scene.place])
        rows.append((world.CHARACTERS.index(scene.character), scene.num_characters - 1,
                     NAMED_MOTIONS.index(scene.motion) if says else len(NAMED_MOTIONS),
                     world.PLACES.index(scene.place) if placed else len(world.PLACES)))
    return torch.tensor(rows)
