"""The captions of pretraining: the words its tokenizer knows, and what a caption says as labels."""

import numpy as np
import torch

from puppets import world
from puppets.composed_motions import ARMS, BODIES, LEGS, MOTIONS_BY_NAME

# Words of the tokenizer that no caption of pretraining has: the placeholder, names of motions to be taught.
EXTRA_WORDS = ("sks", "dance", "dab", "windmill", "three", "dancing")
# What a caption says, each among so many; the last of each but character and number means unsaid.
LABELS = {
    "character": world.CHARACTERS, "number": (1, 2), "place": world.PLACES, "motion": world.EVERYDAY_MOTIONS,
    "arm": tuple(ARMS), "other arm": tuple(ARMS), "in turn": (False, True), "legs": LEGS, "body": BODIES,
}
LABEL_COUNTS = tuple(len(values) + (name not in ("character", "number")) for name, values in LABELS.items())


def world_words() -> list[str]:
    """Every word a caption of pretraining can have, and EXTRA_WORDS."""
    tables = (world.MOTION_PHRASES, world.PLACE_PHRASES)
    phrases = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    phrases += [phrase.replace(",", "") for phrase in world.COMPOSED_PHRASES.values()]
    phrases += [*world.PLURALS.keys(), *world.PLURALS.values(), "a an two is are video of"]
    return sorted({word for phrase in phrases for word in phrase.split()} | set(EXTRA_WORDS))


def write_training_caption(scene: world.Scene, rng: np.random.Generator) -> tuple[str, bool]:
    """A caption, and whether it says the motion: one of twenty has a made-up word there.

    So a word the model has never met (`sks`, later) may mean any motion, and does not shake the rest of what
    the caption says.
    """
    caption = world.write_caption(scene, rng)
    made_up = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=rng.integers(3, 6)))
    if rng.random() >= 0.05 or made_up in EXTRA_WORDS:
        return caption, True
    phrase = world.COMPOSED_PHRASES.get(scene.motion)
    if phrase is None:
        phrase = max((p for p in world.MOTION_PHRASES[scene.motion] if p in caption), key=len)
    return caption.replace(phrase, f"doing the {made_up}"), False


def caption_labels(scenes, captions, says_motion) -> torch.Tensor:
    """What each caption says, as integers (b labels) in the order of LABELS."""
    rows = []
    for scene, caption, says in zip(scenes, captions, says_motion):
        said = {"character": scene.character, "number": scene.num_characters}
        if any(phrase in caption for phrase in world.PLACE_PHRASES[scene.place]):
            said["place"] = scene.place
        if says and scene.motion in MOTIONS_BY_NAME:
            parts = MOTIONS_BY_NAME[scene.motion]
            said |= {"arm": parts.arm, "other arm": parts.other_arm, "in turn": parts.in_turn,
                     "legs": parts.legs, "body": parts.body}
        elif says:
            said["motion"] = scene.motion
        rows.append([values.index(said[name]) if name in said else len(values)
                     for name, values in LABELS.items()])
    return torch.tensor(rows)
