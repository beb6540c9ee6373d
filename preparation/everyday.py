"""Prompts for regularization clips that the base itself renders.

They show subjects of the exemplars' kind, doing everyday things.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from utils.captions import captions_of, read_caption_index
from utils.containers import VIDEO_SUFFIXES
from utils.errors import UserError
from utils.prompts import IDENTIFIER

SUBJECTS = {
    "person": ("a man", "a woman", "a boy", "a girl", "an old man", "an old woman", "a teacher", "a cook",
               "a farmer", "two friends", "a tall man", "a young woman"),
    "animal": ("a dog", "a cat", "a horse", "a cow", "a bear", "an elephant", "a rabbit", "a fox", "a monkey",
               "a duck", "a lion", "a goat"),
    "thing": ("a car", "a bus", "a bicycle", "a boat", "a train", "a robot", "a truck", "a tractor",
              "a balloon", "a motorcycle", "a ball", "a toy"),
}
MOTIONS = {
    "person": ("walking", "running", "waving", "sitting down", "standing up", "talking", "clapping",
               "drinking water", "reading a book", "climbing stairs", "looking around"),
    "animal": ("walking", "running", "eating", "drinking", "lying down", "standing up", "looking around",
               "jumping", "turning its head", "sleeping", "sniffing the ground"),
    "thing": ("moving forward", "turning left", "turning right", "stopping", "standing still",
              "coming closer", "moving away", "passing by", "starting", "moving slowly", "moving fast"),
}
PLACES = ("in a park", "on a street", "in a field", "on a beach", "in front of a house")
PEOPLE = {
    "person", "people", "man", "men", "woman", "women", "boy", "girl", "child", "kid", "lady", "guy", "baby",
    "dancer", "skier", "surfer", "runner", "player", "gymnast", "athlete", "friend", "skater", "couple"}
ANIMALS = {
    "animal", "bird", "panda", "puppy", "kitten", "pig", "sheep", "chicken", "wolf", "tiger", "penguin",
    "fish", "deer", "mouse", "frog", "parrot", "kangaroo"} | {
    subject.split()[-1] for subject in SUBJECTS["animal"]}
THINGS = {
    "thing", "object", "vehicle", "van", "taxi", "bike", "scooter", "ship", "plane", "airplane", "helicopter",
    "drone", "rocket", "machine", "kite", "wheel", "doll", "puppet", "leaf", "flower", "tree", "flag"} | {
    subject.split()[-1] for subject in SUBJECTS["thing"]}


def subjects_of(folder: Path) -> list[str]:
    """Return the subjects of a folder of exemplars: what stands before "doing the V*" or V2* in its captions.

    Raises UserError if its captions cannot be read, or none names the motion.
    """
    index, found = read_caption_index(folder), []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
            for caption in captions_of(path, index, ("",)):
                before, *motion = IDENTIFIER.split(caption, maxsplit=1)
                found += [before.removesuffix("the ").strip().removesuffix(" doing")] if motion else []
    if not found:
        raise UserError(f"{folder}: no caption in it names the motion (V*). Name the folder of your "
                        f"exemplars, or say --subject.")
    return list(dict.fromkeys(found))


def everyday_prompts(subjects: Iterable[str], number: int) -> list[str]:
    """Return `number` prompts. Kinds of subject, and in each its subjects and motions, come equally often."""
    kinds = list(dict.fromkeys(map(kind_of, subjects)))
    prompts = []
    for index in range(number):
        kind, turn = kinds[index % len(kinds)], index // len(kinds)
        who, does = SUBJECTS[kind], MOTIONS[kind]   # 12 and 11: all pairs come before one comes again
        prompts.append(f"{who[turn % len(who)]} {does[turn % len(does)]} {PLACES[turn % len(PLACES)]}")
    return prompts


def kind_of(subject: str) -> str:
    """Return person, animal or thing. A person is the usual subject, and has more names than any list."""
    words = {word.strip(".,") for word in subject.lower().split()}
    # of several: dogs, buses, puppies, wolves
    words |= {re.sub(plural, single, word) for word in words
              for plural, single in (("s$", ""), ("es$", ""), ("ies$", "y"), ("ves$", "f"))}
    return ("person" if words & PEOPLE else "animal" if words & ANIMALS else
            "thing" if words & THINGS else "person")
