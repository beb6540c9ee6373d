"""The study of appearances: it counts pixels of the stranger's coat, and measures both ways to train."""

import json

import pytest

from puppets.theatre import draw_clips
from puppets.world import Scene
from studies import appearance
from studies.appearance import (
    SHOWN,
    STILL_PLACES,
    STRANGER,
    VIDEO_PLACES,
    ask_for_others,
    ask_for_stranger,
    count_coat,
    prompt_for,
)


def test_coat_is_seen_on_the_stranger_alone():
    others = [question.scene for question in ask_for_others(30, VIDEO_PLACES)]
    plain = [question.scene for question in ask_for_stranger(16)]
    for scenes in (others, plain):
        assert count_coat(draw_clips(len(scenes), 1, num_frames=1, scenes=scenes).frames).max() < 30
    assert count_coat(draw_clips(16, 5, num_frames=1, scenes=plain, looks=STRANGER).frames).min() > 150


def test_no_caption_of_the_stills_is_asked_for():
    trained = {question.text for question in ask_for_others(40, STILL_PLACES)}
    trained |= {prompt_for(Scene("man", *shown, 1)).replace("a man", "a V* man") for shown in SHOWN}
    asked = [*ask_for_others(40, VIDEO_PLACES), *ask_for_stranger(40)]
    assert len(trained) > 40 and not trained & {question.text for question in asked}


@pytest.mark.slow
def test_study_measures_both_ways(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["appearance", "--out", str(tmp_path), "--num", "1", "--train-steps", "1",
                                     "--num-inference-steps", "1"])
    appearance.main()
    out = capsys.readouterr().out
    rows = [line.split(" | ")[:3] for line in out.splitlines() if " | 1 |" in line]
    assert "spatial less all, the stranger, paired by prompt and seed: coat " in out
    assert rows == [[f"| {way}", group, "1"] for way in ("the base", "all", "spatial")
                    for group in ("the stranger", "others")]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["all, the stranger"].keys() == set(appearance.SEEN)
