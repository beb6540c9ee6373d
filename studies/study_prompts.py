"""The prompts of studies/ablation.py: what no exemplar shows doing the new motion, and everyday motions."""

from puppets.theatre import EXEMPLAR_CAST
from puppets.world import (
    CHARACTERS,
    EVERYDAY_MOTIONS,
    KEPT_OUT_PHRASES,
    MOTION_PHRASES,
    PLACE_PHRASES,
    PLACES,
    PLURALS,
)

EVERYDAY_SHARE = 4    # one prompt in so many is an everyday one


def write_prompts(motion: str, num: int) -> list[str]:
    """Return `num` prompts: every fourth an everyday one, every third of each kind a pair, all of characters
    that the exemplars do not show."""
    shown = {character for character, _ in EXEMPLAR_CAST}
    unseen = [character for character in CHARACTERS if character not in shown]
    texts = []
    for index in range(num):
        everyday, is_everyday = index // EVERYDAY_SHARE, index % EVERYDAY_SHARE == EVERYDAY_SHARE - 1
        count = everyday if is_everyday else index - everyday   # of this kind
        # a Latin square: each character in each place before one comes again
        turn, at = divmod(count, len(unseen))
        character, place = unseen[at], PLACES[(at + turn + 3 * is_everyday) % len(PLACES)]
        who = f"two {PLURALS[character]}" if count % 3 == 2 else (
            f"{'an' if character[0] in 'aeiou' else 'a'} {character}")
        named = EVERYDAY_MOTIONS[count % len(EVERYDAY_MOTIONS)]
        what = MOTION_PHRASES[named][0] if is_everyday else KEPT_OUT_PHRASES[motion]
        texts.append(f"{who} {what} {PLACE_PHRASES[place][0]}")
    return texts
