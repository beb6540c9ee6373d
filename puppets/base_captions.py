"""The captions that the bundled base is trained on, their words, and the labels that a caption says."""

from collections.abc import Sequence

import numpy as np
import torch

from puppets import world
from puppets.composed_motions import ARMS, BODIES, LEGS, MOTIONS_BY_NAME

# Words of the tokenizer that no caption of pretraining has: the placeholder, names of motions to be taught.
EXTRA_WORDS = ("sks", "dance", "dab", "windmill", "three", "dancing")
# What a caption can say: label -> its values. Only character and number are in every caption.
CAPTION_LABELS = {
    "character": world.CHARACTERS, "number": (1, 2), "place": world.PLACES, "motion": world.EVERYDAY_MOTIONS,
    "arm": tuple(ARMS), "other arm": tuple(ARMS), "in turn": (False, True), "legs": LEGS, "body": BODIES,
}
LABEL_COUNTS = tuple(len(values) + (name not in ("character", "number"))
                     for name, values in CAPTION_LABELS.items())


def base_words() -> list[str]:
    """Return every word a caption of pretraining can have, and EXTRA_WORDS, sorted."""
    composed = [phrase.replace(",", "") for phrase in world.COMPOSED_PHRASES.values()]
    return world.caption_words(*composed, *EXTRA_WORDS)


def write_training_caption(scene: world.Scene, rng: np.random.Generator) -> tuple[str, bool]:
    """Return a caption, and whether it says the motion: one of twenty has a made-up word there.

    Such captions teach the base that an unknown word (later `sks`) may mean any motion, and that the other
    words of the caption mean the same as ever.
    """
    caption = world.write_caption(scene, rng)
    made_up = world.make_up_word(rng, 3, 5)
    if rng.random() >= 0.05 or made_up in EXTRA_WORDS:
        return caption, True
    phrase = world.COMPOSED_PHRASES.get(scene.motion)
    if phrase is None:
        phrase = world.phrase_in(caption, world.MOTION_PHRASES[scene.motion])
    return caption.replace(phrase, f"doing the {made_up}"), False


def caption_labels(scenes: Sequence[world.Scene], captions: Sequence[str],
                   says_motion: Sequence[bool]) -> torch.Tensor:
    """Return the labels in each caption as integers (b labels), in the order of CAPTION_LABELS.

    The value after the last one of a label means that the caption does not say it.
    """
    rows = []
    for scene, caption, says in zip(scenes, captions, says_motion):
        said = {"character": scene.character, "number": scene.num_characters}
        if world.phrase_in(caption, world.PLACE_PHRASES[scene.place]):
            said["place"] = scene.place
        if says and scene.motion in MOTIONS_BY_NAME:
            parts = MOTIONS_BY_NAME[scene.motion]
            said |= {"arm": parts.arm, "other arm": parts.other_arm, "in turn": parts.in_turn,
                     "legs": parts.legs, "body": parts.body}
        elif says:
            said["motion"] = scene.motion
        rows.append([values.index(said[name]) if name in said else len(values)
                     for name, values in CAPTION_LABELS.items()])
    return torch.tensor(rows)
