"""Captions by a model: a random BLIP of the real class from a local folder, and the words for the motion."""

import json

import numpy as np
import pytest
import torch

from preparation.captioner import describe_frame, load_captioner
from utils.errors import UserError


def test_random_blip_from_a_folder_says_something(blip_folder):
    captioner = load_captioner(str(blip_folder))
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    sentence = describe_frame(captioner, frame)
    assert sentence == describe_frame(captioner, frame)
    assert set(sentence.split()) <= {"a", "man", "dog", "dancing", "walking", "in", "park"} and sentence


def test_model_with_a_chat_template_is_asked_about_the_frame(idefics_folder, monkeypatch):
    captioner, seen = load_captioner(str(idefics_folder)), {}
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    sentence = describe_frame(captioner, frame)
    assert sentence and set(sentence.split()) <= {"a", "man", "dog", "dancing", "walking", "in", "park"}

    def answer(input_ids, pixel_values, **_):
        seen["asked"], seen["pixels"] = captioner.processor.decode(input_ids[0]), pixel_values
        said = captioner.processor.tokenizer("a man dancing in park. a dog", return_tensors="pt").input_ids
        return torch.cat([input_ids, said], 1)

    monkeypatch.setattr(captioner.model, "generate", answer)
    assert describe_frame(captioner, frame) == "a man dancing in park"   # one sentence, without the question
    assert seen["asked"].startswith("User:") and seen["asked"].count("<image>") == 4   # cells of the picture
    assert "Describe in" in seen["asked"] and seen["pixels"].std() > 0


def test_processor_that_lacks_a_package_is_one_line_that_names_it(idefics_folder, tmp_path, monkeypatch):
    def load(*_, **__):
        raise ImportError("\nQwen2VLVideoProcessor requires the Torchvision library but has none.\nSee")

    monkeypatch.setattr("preparation.captioner.AutoProcessor.from_pretrained", load)
    with pytest.raises(UserError, match="cannot be loaded .Qwen2VLVideoProcessor requires the Torchvision"):
        load_captioner(str(idefics_folder))


def test_what_is_no_captioner_is_one_line(tmp_path, blip_folder):
    with pytest.raises(UserError, match="does not exist"):
        load_captioner("./no/such/folder")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load_captioner(str(broken))
    assert len(caught.value.problems) == 1
