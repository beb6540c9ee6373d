"""The study of appearances: the clothes that it counts are those of the stranger."""

from puppets.looks import LOOKS
from puppets.theatre import draw_clips
from puppets.world import CHARACTERS, PLACES, Scene
from studies.appearance import STRANGER, ask_for_stranger, count_clothes


def test_nobody_else_and_no_place_has_the_colours_of_the_clothes():
    """Except the edges of a clown's green sleeves before the blue sea."""
    scenes = [Scene(character, "standing", place, 2) for character in CHARACTERS for place in PLACES]
    assert count_clothes(draw_clips(len(scenes), 1, num_frames=1, scenes=scenes).frames).max() < 30


def test_clothes_of_the_stranger_are_counted_in_every_place():
    scenes = [question.scene for question in ask_for_stranger(16)]
    counts = count_clothes(draw_clips(16, 5, num_frames=1, scenes=scenes, looks=STRANGER).frames)
    assert counts.min() > 200 and STRANGER.keys() == LOOKS.keys()
