"""Video classifiers and CLIP: clips and models of any size, the bundled ones on drawn clips, errors."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.recognizing import (
    classify_motion,
    even_indices,
    image_embeddings,
    label_index,
    load_clip,
    load_motion_recognizer,
    text_embeddings,
)
from puppets import recognizer_labels as labels
from puppets import theatre, world
from tests.conftest import ROOT, draw_frames
from utils.errors import UserError

BUNDLED = ROOT / "models" / "puppet-recognizers"
SEED = 4321   # of clips nobody trains on


def make_classifier(folder: Path, size: int = 32, num_frames: int = 16) -> Path:
    """Write a small random VideoMAE of two labels."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessorPil

    torch.manual_seed(0)
    VideoMAEForVideoClassification(VideoMAEConfig(
        image_size=size, patch_size=8, num_frames=num_frames, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, initializer_range=0.5,
        id2label={0: "Spinning", 1: "riding a bike"}, label2id={"Spinning": 0, "riding a bike": 1},
    )).save_pretrained(folder)
    VideoMAEImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}
                              ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return load_motion_recognizer(str(make_classifier(tmp_path_factory.mktemp("classifier"))))


@pytest.fixture(scope="module")
def bundled():
    return load_motion_recognizer(str(BUNDLED / "motion"))


@pytest.fixture(scope="module")
def bundled_clip():
    return load_clip(str(BUNDLED / "clip"))


@pytest.fixture(scope="module")
def drawn():
    """Clips of every motion, 20 each, and their motions as indices."""
    rng = np.random.default_rng(SEED)
    motions = [labels.draw_motion(label, rng) for label in labels.MOTIONS * 20]
    scenes = [replace(labels.draw_any_scene(np.random.default_rng((SEED, 1, i))), motion=motion)
              for i, motion in enumerate(motions)]
    return theatre.draw_clips(len(scenes), SEED, scenes=scenes, trimmed=False), labels.shown_labels(scenes)


# ------------------------------------------------------------------------------------------ any classifier

def test_clips_of_any_length_and_size_get_probabilities(classifier):
    clips = [draw_frames(num_frames, width, height) for num_frames, width, height in
             ((16, 32, 32), (5, 64, 48), (40, 48, 64), (1, 32, 32))]
    probabilities = classify_motion(classifier, clips, batch_size=3)
    assert probabilities.shape == (4, 2) and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert classify_motion(classifier, []).shape == (0, 2)


def test_a_clip_is_judged_alike_in_any_batch(classifier):
    clips = np.stack([draw_frames(16, 32, 32, seed) for seed in range(5)])
    together = classify_motion(classifier, clips, batch_size=5)
    assert np.allclose(together, classify_motion(classifier, clips, batch_size=2), atol=1e-6)
    assert np.ptp(together, axis=0).max() > 1e-3


def test_frames_are_taken_at_even_distances_from_first_to_last():
    assert even_indices(8, 8).tolist() == list(range(8))
    assert even_indices(16, 8).tolist() == [0, 2, 4, 6, 9, 11, 13, 15]
    assert even_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


def test_pixels_are_prepared_as_the_folder_says(tmp_path):
    frames = draw_frames(16, 32, 32)[None]
    folder = make_classifier(tmp_path)
    before = classify_motion(load_motion_recognizer(str(folder)), frames)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"image_mean": [0.1] * 3, "image_std": [0.9] * 3}
    path.write_text(json.dumps(settings))
    assert not np.allclose(before, classify_motion(load_motion_recognizer(str(folder)), frames), atol=1e-3)


def test_labels_are_found_whatever_their_case(classifier):
    assert label_index(classifier, "spinning") == 0
    with pytest.raises(UserError, match=f"{classifier.name}: .*'dance'.*Spinning, riding a bike"):
        label_index(classifier, "dance")


def test_of_many_labels_the_nearest_are_named(classifier):
    labels = (*(f"playing game {number}" for number in range(396)), "salsa dancing", "Spinning poi", "skiing",
              "dancing ballet")
    with pytest.raises(UserError) as error:
        label_index(replace(classifier, labels=labels), "salsa spin")
    message = str(error.value)
    assert "'salsa spin', but 400 others, the nearest salsa dancing, " in message
    assert "Spinning poi" in message
    assert message.count("playing game") < 5


def make_vjepa(folder: Path) -> Path:
    """Write a small random V-JEPA 2 of two labels, whose input and number of frames have other names."""
    from transformers import VJEPA2Config, VJEPA2ForVideoClassification

    torch.manual_seed(0)
    VJEPA2ForVideoClassification(VJEPA2Config(
        patch_size=8, crop_size=32, frames_per_clip=4, hidden_size=24, num_attention_heads=2,
        num_hidden_layers=1, num_pooler_layers=1, pred_hidden_size=24, pred_num_attention_heads=2,
        pred_num_hidden_layers=1, pred_num_mask_tokens=1, id2label={0: "Spinning", 1: "riding a bike"},
        label2id={"Spinning": 0, "riding a bike": 1})).save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text(json.dumps(
        {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": 32}))
    return folder


@pytest.mark.skipif(not find_spec("torchvision"), reason="video processors of transformers need torchvision")
def test_a_classifier_with_frames_per_clip_and_a_video_processor_judges_clips(tmp_path):
    recognizer = load_motion_recognizer(str(make_vjepa(tmp_path)))
    assert recognizer.num_frames == 4
    probabilities = classify_motion(recognizer, [draw_frames(9, 64, 48), draw_frames(3, 32, 32)])
    assert probabilities.shape == (2, 2) and np.allclose(probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is there")
def test_a_video_processor_without_torchvision_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="a video processor .* requires the Torchvision library") as error:
        load_motion_recognizer(str(make_vjepa(tmp_path)))
    assert "Install" in str(error.value) and "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------- errors

@pytest.mark.parametrize("load, folder, words", [
    (load_motion_recognizer, BUNDLED / "clip", "is a CLIPModel, not a video classifier."),
    (load_motion_recognizer, ROOT / "models/puppet-theatre/text_encoder", "not a video classifier. Name"),
    (load_clip, BUNDLED / "motion", "is a VideoMAEForVideoClassification, not a CLIPModel. Name"),
    (load_motion_recognizer, ROOT / "data", "a transformers model cannot be loaded from it"),
    (load_clip, "no/such/folder", "does not exist. Name a transformers folder or a hub id."),
])
def test_what_is_no_recognizer_is_one_clear_line(load, folder, words):
    with pytest.raises(UserError) as error:
        load(str(folder))
    assert str(error.value).startswith(f"{folder}: ") and words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_hub_id_out_of_reach_is_one_clear_line(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="^someone/no-such-model: a transformers model cannot be") as error:
        load_motion_recognizer("someone/no-such-model")
    assert "\n" not in str(error.value)


def test_weights_that_were_never_trained_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = make_classifier(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if "classifier" not in name},
              folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lacks trained weights \\(2, such as classifier.bias\\)"):
        load_motion_recognizer(str(folder))


@pytest.mark.parametrize("num_bytes", [0, 4, 900, -50])
def test_weights_that_are_cut_off_are_one_clear_line(tmp_path, num_bytes):
    path = make_classifier(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(UserError, match="its weights cannot be loaded .* copy or convert") as error:
        load_motion_recognizer(str(tmp_path))
    assert "\n" not in str(error.value)


def test_only_safetensors_are_read(tmp_path):
    folder = make_classifier(tmp_path)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="They must be safetensors"):
        load_motion_recognizer(str(folder))


def test_a_folder_without_an_image_processor_says_so(tmp_path):
    folder = make_classifier(tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="an image processor cannot be loaded from it"):
        load_motion_recognizer(str(folder))


# ----------------------------------------------------------------------------------------- the bundled ones

def test_bundled_recognizers_are_small_and_whole():
    files = [path for path in BUNDLED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15e6
    for name in ("motion", "clip"):
        card = (BUNDLED / name / "README.md").read_text()
        assert card.startswith("---\nlicense: apache-2.0\n") and "Not yet measured" not in card


def test_motions_of_drawn_clips_are_recognized(bundled, drawn):
    clips, shown = drawn
    assert bundled.labels == labels.MOTIONS and bundled.model.dtype == torch.float32
    seen = classify_motion(bundled, clips.frames).argmax(1)
    assert (seen == shown["motion"]).mean() >= 0.98


def test_shuffled_frames_lose_the_motion(bundled, drawn):
    clips, shown = drawn
    moving = ~np.isin(shown["motion"], [labels.MOTIONS.index(name) for name in ("standing", labels.OTHER)])
    frames, motions = clips.frames[moving], shown["motion"][moving]
    straight = classify_motion(bundled, frames)
    shuffled = classify_motion(bundled, frames[:, [3, 7, 0, 5, 2, 6, 1, 4]])
    rows = np.arange(len(frames))
    assert shuffled[rows, motions].mean() < straight[rows, motions].mean() - 0.2
    assert (shuffled.argmax(1) == motions).mean() < (straight.argmax(1) == motions).mean() - 0.08


def test_a_frozen_moment_of_a_motion_is_not_credited(bundled, drawn):
    clips, shown = drawn
    moving = shown["motion"] != labels.MOTIONS.index("standing")
    frozen = np.repeat(clips.frames[moving][:, 3:4], 8, axis=1)
    probabilities = classify_motion(bundled, frozen)
    assert (probabilities.argmax(1) == labels.MOTIONS.index("standing")).mean() > 0.9
    assert probabilities[np.arange(len(frozen)), shown["motion"][moving]].mean() < 0.1


def test_clip_tells_character_number_and_place(bundled_clip, drawn):
    clips, shown = drawn
    for motion in ("", "doing the sks dance"):
        captions = labels.scene_captions(motion)
        found = labels.match_captions(bundled_clip, clips.frames[:66], captions, num_frames=2)
        seen = labels.read_scenes(found)
        for name in ("character", "number", "place"):
            assert (seen[name] == shown[name][:66]).mean() >= 0.97, (motion, name)


def test_embeddings_have_length_one_and_know_the_right_caption(bundled_clip, drawn):
    clips, _ = drawn
    images = image_embeddings(bundled_clip, clips.frames[:50, 0], batch_size=16)
    captions = [f"{world.say_who(s.character, s.num_characters)} {world.PLACE_PHRASES[s.place][0]}"
                for s in clips.scenes[:50]]
    texts = text_embeddings(bundled_clip, captions)
    assert torch.allclose(images.norm(dim=1), torch.ones(50), atol=1e-5)
    assert torch.allclose(texts.norm(dim=1), torch.ones(50), atol=1e-5)
    similarity = images @ texts.T
    assert similarity.diagonal().mean() > similarity.mean() + 0.3


def test_bundled_recognizers_load_by_the_ordinary_classes():
    from transformers import AutoImageProcessor, AutoModelForVideoClassification, CLIPModel, CLIPProcessor

    assert AutoModelForVideoClassification.from_pretrained(BUNDLED / "motion").dtype == torch.float32
    assert AutoImageProcessor.from_pretrained(BUNDLED / "motion").size["shortest_edge"] == 64
    assert CLIPModel.from_pretrained(BUNDLED / "clip").dtype == torch.float32
    inputs = CLIPProcessor.from_pretrained(BUNDLED / "clip")(text=["two cats"], return_tensors="pt")
    assert inputs.input_ids.shape == (1, 4)
