"""evaluation/motion_words.py: which words of a prompt name the motion, and what is left without them."""

import pytest

from evaluation.motion_words import MotionName, asks_for_motion, named_label, without_motion
from tests.conftest import ROOT
from utils.prompt_lists import read_prompts

EVERYDAY = ("standing", "walking", "waving", "jumping", "squatting", "bowing", "jumping jacks", "kicking",
            "dance")


def rest_of(prompt: str, label: str, phrase: str | None = None) -> str:
    return without_motion(prompt, MotionName(label, phrase).patterns(["sks"]))


@pytest.mark.parametrize("prompt, rest", [
    ("a robot doing the V* dance in the park", "a robot in the park"),
    ("a robot doing the sks dance in the park", "a robot in the park"),
    ("two cats do the V* dance, at night", "two cats, at night"),
    ("a man SKS dance on a stage", "a man on a stage"),
    ("a cat doing the V*-dance on a mat", "a cat on a mat"),
    ("the V* dance", ""),
    ("The V* dance in the snow", "in the snow"),
    ("a nurse doing a dance in the snow", "a nurse in the snow"),
    ("a robot doing the V* in the park", "a robot in the park"),
    ("a robot doing the V2* dance in the park", "a robot in the park"),
    ("a robot doing the V*, with a hat", "a robot, with a hat"),
    ("a V* cat in the sun", "cat in the sun"),
    ("a robot waving in the park", "a robot waving in the park"),
    ("asks for a dancefloor", "asks for a dancefloor"),
    ("two dancers doing the V* dance in the park", "two dancers in the park"),
])
def test_only_the_motion_is_left_out(prompt, rest):
    assert rest_of(prompt, "dance") == rest


@pytest.mark.parametrize("prompt, label, phrase, rest", [
    ("a robot doing the V* dance in the park", "salsa spin", "doing the V* dance", "a robot in the park"),
    ("a robot doing the SKS  Dance in the park", "salsa spin", "doing the V* dance", "a robot in the park"),
    ("a boxer V* boxing", "hitting", "V* boxing", "a boxer"),
    ("a robot doing the V2* dance in the park", "salsa", "doing the V2* dance", "a robot in the park"),
    ("a robot doing the sks dance in the park", "salsa", "doing the V2* dance", "a robot in the park"),
    ("a boxer shadow boxing at night", "hitting", "shadow boxing", "a boxer at night"),
    ("a cat doing the V*", "hitting", "V* boxing", "a cat"),
    ("a robot doing the V* salsa_spin in the park", "salsa spin", None, "a robot in the park"),
])
def test_a_motion_with_other_words_is_left_out_by_its_phrase(prompt, label, phrase, rest):
    assert rest_of(prompt, label, phrase) == rest


@pytest.mark.parametrize("prompt, phrase, asked", [
    ("a cat doing the V* dance", None, True), ("a cat doing the Sks thing", None, True),
    ("a cat in a dance", None, True), ("a cat shadow boxing", "shadow boxing", True),
    ("a cat shadow boxing", None, False), ("a cat waving", None, False), ("a cat asks", None, False),
    ("a dancer asleep", None, False), ("abundance", None, False),
])
def test_prompts_that_ask_for_the_motion(prompt, phrase, asked):
    assert asks_for_motion(prompt, MotionName("dance", phrase).patterns(["sks"])) is asked


@pytest.mark.parametrize("prompt, phrase, asked, rest", [
    ("a robot doing the sks dance", "doing the V* dance", True, "a robot"),
    ("a robot doing the zwx jump", "doing the V* dance", False, "a robot doing the jump"),
    ("a robot doing the V2* jump", "doing the V* dance", False, "a robot doing the jump"),
    ("a zwx man walking in the park", "doing the V1* dance", False, "a man walking in the park"),
    ("a zwx man doing the sks dance in the park", "doing the V* dance", True, "a man in the park"),
    ("a robot doing the sks in the park", "doing the V* dance", True, "a robot in the park"),
    ("a robot doing the zwx hop", "doing the V2* hop", True, "a robot"),
    ("a robot doing the sks dance", "doing the V2* dance", True, "a robot"),   # by its label
    ("a robot doing the zwx dance", None, True, "a robot"),
    ("a zwx man walking in the park", None, False, "a man walking in the park"),
    ("a robot doing the sks in the park", None, False, "a robot doing the in the park"),
])
def test_of_several_motions_only_the_one_that_is_measured_counts(prompt, phrase, asked, rest):
    tokens = ["sks", "zwx"]
    patterns = MotionName("dance", phrase).patterns(tokens)
    assert asks_for_motion(prompt, patterns) is asked
    assert without_motion(prompt, patterns, tokens) == rest


@pytest.mark.parametrize("prompt, label", [
    ("a nurse doing jumping jacks at night", "jumping jacks"), ("two cats Jumping in the snow", "jumping"),
    ("a man kicking a ball", "kicking"), ("a cat asleep", None), ("a rainbow", None), ("two walkers", None),
    ("a man in a red jumper waving", "waving"), ("a man playing dance_music", None),
])
def test_label_in_a_prompt_is_found(prompt, label):
    assert named_label(prompt, EVERYDAY) == label


@pytest.mark.parametrize("label", ["spin", "V*", "running", "do a flip", "x", "juggling balls", "(a) b+"])
def test_any_label_makes_a_pattern(label):
    assert rest_of(f"a cat V* {label} here", label) == "a cat here"
    assert asks_for_motion(f"a cat {label}", MotionName(label).patterns([]))


@pytest.mark.parametrize("path", sorted((ROOT / "data/prompts").glob("*.txt")), ids=lambda path: path.stem)
def test_every_bundled_prompt_is_left_with_its_subject_and_place(path):
    """The bundled prompts say "doing the V* dance"."""
    for prompt in read_prompts(str(path)):
        assert rest_of(prompt.text, "dance") == prompt.text.replace(" doing the V* dance", "")
