"""The instrument for the base: which prompts it draws, going on where it stopped, what it reports."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from puppets import theatre, world
from puppets.recognizer_labels import MOTIONS, shown_labels
from utils.errors import UserError


@pytest.fixture(scope="module")
def script():
    from puppets import measure_base

    return measure_base


@pytest.fixture
def measure(script, monkeypatch, tiny_base, tmp_path):
    """Run the script in this process on a small random base, and return its scores."""
    def run(*more: str, rendered=script.render) -> dict:
        monkeypatch.setattr(script, "render", rendered)
        monkeypatch.setattr(sys, "argv", ["measure_base.py", "--base", str(tiny_base), "--num", "4",
                                          "--batch-size", "2", "--num-inference-steps", "1",
                                          "--out", str(tmp_path), *more])
        script.main()
        return json.loads((tmp_path / "scores.json").read_text())

    return run


def test_half_of_the_prompts_are_of_trained_combinations(script):
    questions = script.ask(60, seed=0)
    for question in questions:
        scene = question.scene
        held_out = (scene.character, scene.motion, scene.place) in world.HELD_OUT_COMBINATIONS
        assert held_out == (question.group == "held-out combinations")
        assert any(phrase in question.text for phrase in world.PLACE_PHRASES[scene.place])
    assert sum(question.group == "held-out combinations" for question in questions) == 30
    assert len({question.seed for question in questions}) == 60
    assert script.ask(60, seed=1) != questions == script.ask(60, seed=0)


def test_a_learned_motion_is_asked_of_all_who_are_not_in_the_exemplars(script):
    questions = script.ask_for_motion("dance", 42, seed=0)
    asked = {(question.scene.character, question.scene.num_characters) for question in questions}
    assert asked == {(character, number) for number in (1, 2)
                     for character in set(world.CHARACTERS) - {"man", "woman", "clown"}}
    assert all("doing the V* dance" in question.text for question in questions)


def test_drawn_clips_in_the_place_of_rendered_ones_are_right(script, measure):
    scenes = {question.text: question.scene for question in script.ask(4, seed=0)}

    def draw(_pipeline, prompts, _how) -> np.ndarray:
        return np.concatenate([theatre.draw_clips(1, prompt.seed, scenes=[scenes[prompt.text]]).frames
                               for prompt in prompts])

    scores = measure(rendered=draw)
    assert scores["right"]["all"]["all four"]["mean"] >= 0.75 and scores["right"]["all"]["place"]["num"] == 4
    assert scores["right"]["held-out combinations"]["motion"]["num"] == 2
    assert scores["right"]["all"]["named motion"]["mean"] >= scores["right"]["all"]["motion"]["mean"]
    assert np.array(scores["confusion"]).trace() >= 3
    assert scores["motion_probability"]["num"] == 4 and scores["motion_probability"]["mean"] > 0.5


def test_videos_of_one_prompt_do_not_count_as_so_many_prompts(script, tmp_path, capsys):
    found = {}
    for num in (1, 4):
        questions = script.ask(8, seed=0) * num
        shown = shown_labels([question.scene for question in questions])
        seen = {**shown, "named motion": shown["motion"],
                "place": np.where(np.arange(8 * num) % 8 < 6, shown["place"], -1)}
        script.report(questions, seen, np.full((8 * num, len(MOTIONS)), 0.1), MOTIONS,
                      SimpleNamespace(out=tmp_path))
        found[num] = json.loads((tmp_path / "scores.json").read_text())["right"]["all"]["place"]
    assert found[4] == pytest.approx({**found[1], "num": 32}) and found[4]["num_prompts"] == 8
    assert "32 of 8 prompts" in capsys.readouterr().out


def test_motion_is_also_judged_without_something_else(script, monkeypatch):
    from puppets.recognizer_labels import MOTIONS

    labels = MOTIONS[::-1]   # the recognizer may have them in another order
    probabilities = np.full((3, len(labels)), 0.01)
    for video, (first, second) in enumerate([("something else", "dance"), ("dance", "something else"),
                                             ("something else", "kicking")]):
        probabilities[video, [labels.index(first), labels.index(second)]] = 0.5, 0.4
    recognizer = SimpleNamespace(labels=labels)
    monkeypatch.setattr(script, "classify_motion", lambda *_: probabilities)
    monkeypatch.setattr(script, "match_captions", lambda *_: np.zeros((3, 10 * 2 * 7)))
    seen, _ = script.see(recognizer, None, np.zeros((3, 8, 64, 64, 3), np.uint8))
    named = {name: [MOTIONS[index] for index in seen[name]] for name in ("motion", "named motion")}
    assert named == {"motion": ["something else", "dance", "something else"],
                     "named motion": ["dance", "dance", "kicking"]}


def test_an_interrupted_measurement_goes_on_and_other_settings_start_anew(script, measure, tmp_path):
    batches = []

    def interrupted(pipeline, prompts, how):
        batches.append(prompts)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return np.zeros((len(prompts), 8, 64, 64, 3), np.uint8)

    with pytest.raises(KeyboardInterrupt):
        measure(rendered=interrupted)
    assert len(measure(rendered=interrupted)["videos"]) == 4
    assert len(batches) == 3 and batches[1] == batches[2]
    measure("--guidance-scale", "6", rendered=interrupted)
    assert len(batches) == 5


def test_a_random_base_is_rendered_and_mostly_wrong(measure, tmp_path, capsys):
    scores = measure("--sheet", "2")
    assert scores["right"]["all"]["all four"]["mean"] < 1
    assert (tmp_path / "sheet.png").exists() and len((tmp_path / "sheet.txt").read_text().splitlines()) == 2
    assert "| trained combinations | 2 |" in capsys.readouterr().out


def test_no_motion_weights_is_one_clear_line(measure, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path / 'nothing'}: holds no motion weights") as error:
        measure("-m", str(tmp_path / "nothing"))
    assert len(error.value.problems) == 1


def test_another_recognizer_than_of_the_puppet_theatre_is_refused(measure, tmp_path):
    from tests.recognizers import make_recognizer

    folder = make_recognizer(tmp_path / "other")
    with pytest.raises(UserError, match="its labels are not the motions of the puppet theatre"):
        measure("--recognizer", str(folder))
