"""The prompts of studies/ablation.py: unseen characters doing the new motion or an everyday one."""

from puppets.theatre import EXEMPLAR_CAST
from puppets.world import (
    CHARACTERS,
    EVERYDAY_MOTIONS,
    KEPT_OUT_PHRASES,
    MOTION_PHRASES,
    PLACE_PHRASES,
    PLACES,
    say_who,
)

EVERYDAY_SHARE = 4    # one prompt in four is an everyday prompt


def write_prompts(motion: str, num: int) -> list[str]:
    """Return `num` prompts of characters that the exemplars do not show.

    Every fourth prompt names an everyday motion. Of both kinds every third prompt is of two characters.
    """
    shown = {character for character, _ in EXEMPLAR_CAST}
    unseen = [character for character in CHARACTERS if character not in shown]
    texts = []
    for index in range(num):
        num_everyday, is_everyday = index // EVERYDAY_SHARE, index % EVERYDAY_SHARE == EVERYDAY_SHARE - 1
        count = num_everyday if is_everyday else index - num_everyday   # prompts of the same kind before
        # a Latin square: each character is in another place before it is in one again
        turn, at = divmod(count, len(unseen))
        character, place = unseen[at], PLACES[(at + turn + 3 * is_everyday) % len(PLACES)]
        everyday = MOTION_PHRASES[EVERYDAY_MOTIONS[count % len(EVERYDAY_MOTIONS)]][0]
        what = everyday if is_everyday else KEPT_OUT_PHRASES[motion]
        texts.append(f"{say_who(character, 2 if count % 3 == 2 else 1)} {what} {PLACE_PHRASES[place][0]}")
    return texts
