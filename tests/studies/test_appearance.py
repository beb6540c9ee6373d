"""The study of appearances: the pixels that it counts are those of the stranger's coat."""

from puppets.theatre import draw_clips
from studies.appearance import STRANGER, ask_for_others, ask_for_stranger, count_coat


def test_coat_is_seen_on_the_stranger_alone():
    others = [question.scene for question in ask_for_others(30, "beach")]
    plain = [question.scene for question in ask_for_stranger(16)]
    for scenes in (others, plain):
        assert count_coat(draw_clips(len(scenes), 1, num_frames=1, scenes=scenes).frames).max() < 30
    assert count_coat(draw_clips(16, 5, num_frames=1, scenes=plain, looks=STRANGER).frames).min() > 150
