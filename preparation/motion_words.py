"""The words for the motion in a sentence about a frame, and what takes their place in a caption."""

import re

from utils.prompts import MOTION_TOKEN

BE = r"(?:\b(?:is|are|was|were)\s+)?"
DO = r"\b(?:do|does|doing|did|performs?|performing|performed|practices|practicing)\s+"
# verbs in -ing that say nothing of the motion, and words in -ing that are no verbs
NO_MOTION = (r"(?:wearing|during|including|\w+thing|\w*building|ceiling|morning|evening|railing|wedding|king|"
             r"ring|wing|spring|string|painting)\b")
# nouns that are named after a motion: in "a swimming pool" and "the dance floor" nobody swims or dances
NAMED_BY_A_MOTION = (r"(?:room|floor|pool|hall|studio|stage|class|school|club|court|field|track|rink|ring|"
                     r"lane|path|trail|slope|lift|wall|board|bike|boat|machine|table|chair|stick|pole|shoe|boot|"
                     r"suit|trunk|clothe|dress|costume|outfit|gear|mat|bag|rope|lot|mall|show|party|team|partner|"
                     r"instructor|teacher)s?(?:es)?\b")
# words before which the object of a verb ends: "riding a wave" of "riding a wave in the sea"
ENDS_AN_OBJECT = (r"(?:in|on|at|to|into|onto|from|with|without|under|over|above|below|behind|beside|beneath|"
                  r"near|next|by|along|across|through|around|inside|outside|toward|towards|between|among|"
                  r"against|before|after|up|down|off|out|of|for|during|while|as|and|or|but|who|that|which|"
                  r"where|when|wearing|is|are|was|were)\b")
OBJECT = rf"(?:\s+(?:up|down|out)(?=\s+{ENDS_AN_OBJECT}|\W*$))?(?:\s+(?!{ENDS_AN_OBJECT})[\w'-]+)*"
VERB = rf"\b(?!{NO_MOTION})\w{{2,}}ing\b(?!\s+{NAMED_BY_A_MOTION})"
# words behind which a word in -ing belongs to the next noun: "a running man", "in swimming trunks"
BEFORE_A_NOUN = {"a", "an", "the", "some", "his", "her", "its", "their", "this", "that", "in", "on", "at",
                 "of", "from", "for", "by"}


def with_motion(sentence: str, motion: str) -> str:
    """Return `sentence` with its words for the motion replaced by "doing the V* {motion}".

    Its words for the motion are the motion's own name, in any inflection, or else the first verb in -ing with
    its object. A sentence with neither has the motion added. "a man is riding a wave in the sea" -> "a man
    doing the V* surf in the sea".
    """
    doing = f"doing the {MOTION_TOKEN} {motion}"
    words = r"\s+".join(map(_inflected, motion.split()))
    name = rf"(?<!\w){words}(?!\w)(?!\s+{NAMED_BY_A_MOTION})"
    does_it = rf"{BE}{DO}(?:(?!{ENDS_AN_OBJECT})\w+\s+){{0,3}}?{name}"
    for pattern in (does_it, BE + name, rf"{BE}{VERB}(?:\s+and\s+{VERB})?{OBJECT}"):
        for found in re.finditer(pattern, sentence, re.IGNORECASE):
            before = sentence[:found.start()].split()
            if before and before[-1].lower() not in BEFORE_A_NOUN:
                return " ".join(f"{sentence[:found.start()]}{doing}{sentence[found.end():]}".split())
    return f"{sentence} {doing}"


def _inflected(word: str) -> str:
    """Return a pattern for a word that names a motion, in its forms: dance, dances, danced, dancing."""
    stem = re.sub(r"(?<=\w{3})(?:ing|ed|es|s|e|y)$", "", word)
    stems = sorted({word, stem, re.sub(r"(\w)\1$", r"\1", stem)})   # "hopping" is of "hop"
    return "(?:" + "|".join(rf"{re.escape(stem)}{re.escape(stem[-1])}?(?:e?[sd]?|ing|y|ies|ied)"
                            for stem in stems) + ")"
