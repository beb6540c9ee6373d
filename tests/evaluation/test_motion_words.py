"""evaluation/motion_words.py: which words of a prompt name the motion, and what is left without them."""

import pytest

from evaluation.motion_words import asks_for_motion, named_label, without_motion

EVERYDAY = ("standing", "walking", "waving", "jumping", "squatting", "bowing", "jumping jacks", "kicking",
            "dance")


@pytest.mark.parametrize("prompt, rest", [
    ("a robot doing the V* dance in the park", "a robot in the park"),
    ("a robot doing the sks dance in the park", "a robot in the park"),
    ("two cats do the v * dance, at night", "two cats, at night"),
    ("a man performing <sks> dancing", "a man"),
    ("a man SKS dances on a stage", "a man on a stage"),
    ("a man doing the V* motion", "a man"),
    ("a cat doing the V*-dance on a mat", "a cat on a mat"),
    ("the V* dance", ""),
    ("a nurse dancing in the snow", "a nurse in the snow"),
    ("a robot waving in the park", "a robot waving in the park"),
    ("asks for a dancefloor", "asks for a dancefloor"),
    ("a man doing V* skiing", "a man skiing"),
    ("two dancers doing the V* dance in the park", "two dancers in the park"),
])
def test_only_the_motion_is_left_out(prompt, rest):
    assert without_motion(prompt, ["sks"], "dance") == rest


@pytest.mark.parametrize("prompt, label, rest", [
    ("a boxer V* boxing", "boxing", "a boxer"),
    ("a robot doing the V* dance in the park", "salsa spin", "a robot in the park"),
    ("a robot doing the V* salsa spin in the park", "salsa spin", "a robot in the park"),
    ("a robot performs a sks spin, at night", "salsa spin", "a robot, at night"),
    ("The V* dance in the snow", "salsa spin", "in the snow"),
    ("a cat doing the V* moon-walk", "salsa spin", "a cat"),
    ("a robot doing the V* dance motion in the park", "salsa spin", "a robot in the park"),
    # what follows is no name of the motion
    ("a robot doing the V* in the park", "salsa spin", "a robot in the park"),
    ("a robot doing the V* slowly, at night", "salsa spin", "a robot slowly, at night"),
    ("a robot doing the V*, with a hat", "salsa spin", "a robot, with a hat"),
    ("a robot doing the V* wearing a hat", "salsa spin", "a robot wearing a hat"),
    ("a robot doing V* and a cat", "salsa spin", "a robot and a cat"),
    ("a V* cat in the sun", "salsa spin", "cat in the sun"),
])
def test_another_name_behind_the_identifier_is_left_out_too(prompt, label, rest):
    assert without_motion(prompt, ["sks"], label) == rest


@pytest.mark.parametrize("prompt, asked", [
    ("a cat doing the V* dance", True), ("a cat doing the Sks thing", True), ("a cat dances", True),
    ("a cat waving", False), ("a cat asks", False), ("a dancer asleep", False), ("abundance", False),
])
def test_prompts_that_ask_for_the_motion(prompt, asked):
    assert asks_for_motion(prompt, ["sks"], "dance") is asked


@pytest.mark.parametrize("prompt, label", [
    ("a nurse doing jumping jacks at night", "jumping jacks"), ("two cats jumping in the snow", "jumping"),
    ("a man kicks a ball", "kicking"), ("a bear bowed", "bowing"), ("a cat asleep", None),
    ("a man waves", "waving"), ("a rainbow", None), ("a wavy sea", None),
    ("a man in a red jumper waving", "waving"), ("two walkers", None),
])
def test_label_in_a_prompt_is_found(prompt, label):
    assert named_label(prompt, EVERYDAY) == label


@pytest.mark.parametrize("label", ["spin", "V*", "running", "do a flip", "x", "juggling balls"])
def test_any_label_makes_a_pattern(label):
    assert without_motion(f"a cat V* {label}", [], label) == "a cat"
    assert asks_for_motion(f"a cat {label}", [], label)
