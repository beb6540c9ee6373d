"""The words for the motion in a sentence, whatever else ends in -ing."""

import pytest

from preparation.motion_words import with_motion


@pytest.mark.parametrize("sentence, motion, caption", [
    ("a man is dancing in a park", "dance", "a man doing the V* dance in a park"),
    ("a woman does a dance on stage", "dance", "a woman doing the V* dance on stage"),
    ("a man is riding a wave in the sea", "surf", "a man doing the V* surf in the sea"),
    ("a man wearing a hat is standing in front of a building", "dance",
     "a man wearing a hat doing the V* dance in front of a building"),
    ("two men running and jumping on grass", "salsa spin", "two men doing the V* salsa spin on grass"),
    ("A girl was skiing", "ski", "A girl doing the V* ski"),
    ("a dog", "dance", "a dog doing the V* dance"),
    ("a surfer riding a big wave in the sea", "surf", "a surfer doing the V* surf in the sea"),
    ("a man is on a walkway", "walk", "a man is on a walkway doing the V* walk"),
    ("a woman walks on the dance floor", "dance", "a woman walks on the dance floor doing the V* dance"),
    ("a man in a living room", "dance", "a man in a living room doing the V* dance"),
    ("a child in a swimming pool", "swim", "a child in a swimming pool doing the V* swim"),
    ("a boy in red swimming trunks is standing", "dance", "a boy in red swimming trunks doing the V* dance"),
    ("a dancing man", "dance", "a dancing man doing the V* dance"),
    ("a running man in a park", "dance", "a running man in a park doing the V* dance"),
    ("a man performing an elegant dance on stage", "dance", "a man doing the V* dance on stage"),
    ("a couple dancing the tango", "tango", "a couple doing the V* tango"),
    ("a girl jumping rope in a yard", "jump rope", "a girl doing the V* jump rope in a yard"),
    ("a man hopped over a fence", "hop", "a man doing the V* hop over a fence"),
    ("a man sitting down on a chair", "dance", "a man doing the V* dance on a chair"),
    ("a man walking down the street", "dance", "a man doing the V* dance down the street"),
    ("a boy playing basketball, wearing a cap", "dribble", "a boy doing the V* dribble, wearing a cap"),
    ("people skiing", "skiing", "people doing the V* skiing"),
])
def test_words_for_the_motion_become_its_name(sentence, motion, caption):
    assert with_motion(sentence, motion) == caption
