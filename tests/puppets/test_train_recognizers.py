"""The maker of the bundled recognizers: what they train on, exact resuming, folders transformers loads."""

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from puppets import recognizer_examples as examples
from puppets import recognizer_labels as labels
from puppets import recognizer_networks as networks
from puppets import theatre, world
from puppets.composed_motions import NEAR, arms_over_a_cycle, distance
from puppets.degrading import degrade, spoil_latents
from puppets.motions import POSERS
from puppets.training_run import Shards
from utils.errors import UserError


@pytest.fixture(scope="module")
def script():
    from puppets import check_recognizers
    from puppets import train_recognizers as module

    module.WHITENING_CLIPS, check_recognizers.CHECK_CLIPS = 4, 30
    return module


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(examples, "SHARD_CLIPS", 16)


@pytest.fixture
def run_stage(script, monkeypatch):
    """Run a stage of the script in this process, with small batches and, for speed, a random first layer."""
    monkeypatch.setattr(networks, "whiten_tubelets", lambda model, frames: None)
    def run(work_dir: Path, stage: str, *more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["train_recognizers.py", "--work-dir", str(work_dir),
                                          "--stage", stage, "--batch-size", "4", "--mixed-precision", "no",
                                          "--export-dir", str(work_dir / "export"), *more])
        script.main()

    return run


@pytest.fixture
def same_rate(script, monkeypatch):
    """Let the rate be that of a longer run, whatever the last step: only so are two parts one whole."""
    monkeypatch.setattr(script, "cosine_rate", lambda peak, step, num_steps, num_warmup: peak)


def test_processes_of_one_run_may_draw_the_same_shard(tmp_path, monkeypatch):
    """Two that saved it at once, under one temporary name, ended with FileNotFoundError."""
    save = torch.save

    def draw_too() -> None:
        torch.save = save
        Shards(tmp_path, lambda index: {"labels": torch.zeros(2)}, 2)[0]

    def save_while_another_does(state: dict, path: Path) -> None:
        save(state, path)
        other = multiprocessing.get_context("fork").Process(target=draw_too)
        other.start()
        other.join(60)
        assert other.exitcode == 0

    monkeypatch.setattr(torch, "save", save_while_another_does)
    assert Shards(tmp_path, lambda index: {"labels": torch.ones(2)}, 2)[0]["labels"].tolist() == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["00000.pt"]


@pytest.mark.parametrize("first_shards", [1, 5])
def test_a_run_begins_with_as_many_shards_as_asked_for(tmp_path, first_shards):
    shards = Shards(tmp_path, lambda index: {"labels": torch.full((2,), index)}, 2, first_shards)
    drawn = [shards.draw("labels", num=100, step=step, rng=np.random.default_rng(0))[0] for step in (0, 250)]
    assert [len(set(labels.tolist())) for labels in drawn] == [first_shards, first_shards + 1]


@pytest.mark.parametrize("stage", ["motion", "clip"])
def test_stopping_and_going_on_equals_training_through(run_stage, same_rate, tmp_path, stage):
    for folder, stops in (("through", "2"), ("stopped", "12")):
        for stop in stops:
            run_stage(tmp_path / folder, stage, "--steps", stop)
    through, stopped = (torch.load(tmp_path / folder / f"{stage}.pt", weights_only=True)
                        for folder in ("through", "stopped"))
    assert through["step"] == stopped["step"] == 2
    for name, tensor in through["model"].items():
        assert torch.equal(tensor, stopped["model"][name]), name
    for a, b in zip(through["average"], stopped["average"], strict=True):
        assert torch.equal(a, b)


def test_exported_folders_load_in_stock_transformers_and_are_checked(run_stage, tmp_path):
    from transformers import AutoModelForVideoClassification, AutoProcessor, CLIPModel

    for stage in ("motion", "clip", "export"):
        run_stage(tmp_path, stage, "--steps", "1")
    classifier = AutoModelForVideoClassification.from_pretrained(tmp_path / "export" / "motion")
    assert classifier.config.id2label == dict(enumerate(labels.MOTIONS))
    assert classifier.dtype == CLIPModel.from_pretrained(tmp_path / "export" / "clip").dtype == torch.float32
    inputs = AutoProcessor.from_pretrained(tmp_path / "export" / "clip")(text=["a man"], return_tensors="pt")
    assert inputs.input_ids.shape[1] == 4
    for name in ("motion", "clip"):
        assert "Not yet measured" in (tmp_path / "export" / name / "README.md").read_text()

    run_stage(tmp_path / "again", "import", "--export-dir", str(tmp_path / "export"))
    imported = torch.load(tmp_path / "again" / "motion.pt", weights_only=True)["model"]
    for name, parameter in classifier.named_parameters():
        assert torch.equal(imported[name], parameter), name
    run_stage(tmp_path / "again", "motion", "--steps", "1")     # and goes on from them

    run_stage(tmp_path, "check")
    for name in ("motion", "clip"):
        card = (tmp_path / "export" / name / "README.md").read_text()
        assert "Not yet measured" not in card and "| as drawn | 30 |" in card
        for view in ("through the base's autoencoder", "with errors in the latents",
                     "noised up to timestep 279, denoised by the base"):
            assert f"| {view} | 3 |" in card


def test_exporting_before_training_says_which_stage_to_run(run_stage, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path / 'motion.pt'}: .*--stage motion"):
        run_stage(tmp_path, "export")


def test_a_frozen_clip_is_standing_and_a_shuffled_one_no_motion_it_knows():
    rng = np.random.default_rng(0)
    frames = torch.arange(8).expand(400, 8)[..., None, None, None].to(torch.uint8)
    shown = torch.full((400,), labels.MOTIONS.index("dance"))
    changed, target = examples.with_stills(frames, shown, rng)
    orders = changed[:, :, 0, 0, 0].tolist()
    kinds = {"frozen": 0, "shuffled": 0}
    for order, wanted in zip(orders, target):
        if len(set(order)) == 1:
            kinds["frozen"] += 1
            assert wanted.argmax() == labels.MOTIONS.index("standing") and wanted.max() == 1
        elif order != list(range(8)):
            kinds["shuffled"] += 1
            assert sorted(order) == list(range(8)) and wanted.argmax() == labels.MOTIONS.index(labels.OTHER)
        else:
            assert wanted.argmax() == labels.MOTIONS.index("dance") and wanted.max() == 1
    assert 8 < kinds["frozen"] < 40 and 20 < kinds["shuffled"] < 60


def test_every_scene_is_drawn_for_training_and_none_of_them_twice():
    rng = np.random.default_rng(0)
    scenes = [labels.draw_any_scene(rng) for _ in range(3000)]
    assert {labels.label_of(scene.motion) for scene in scenes} == set(labels.MOTIONS)
    assert not {scene.motion for scene in scenes} - set(labels.NAMED_MOTIONS) - set(labels.OTHER_MOTIONS) \
        - set(labels.BLENDED_MOTIONS)
    assert len({(s.character, s.place, s.num_characters) for s in scenes}) == 10 * 7 * 2
    first, second = examples.draw_motion_shard(0), examples.draw_motion_shard(1)
    assert not any((first["frames"] == clip).all(dim=(1, 2, 3, 4)).any() for clip in second["frames"])


def test_captions_of_frames_say_what_is_shown_and_any_motion_or_none():
    rng = np.random.default_rng(0)
    made_up = unsaid = placeless = 0
    for _ in range(2000):
        scene = labels.draw_any_scene(rng)
        caption, (says_character, says_number, says_place) = labels.write_frame_caption(scene, rng)
        named = world.say_who(scene.character, scene.num_characters) in caption
        assert named == says_character == says_number
        assert any(phrase in caption for phrase in world.PLACE_PHRASES[scene.place]) == says_place
        made_up += "doing the" in caption
        unsaid += caption == f"{world.say_who(scene.character, scene.num_characters)} " \
                             f"{world.PLACE_PHRASES[scene.place][0]}"
        placeless += not says_place
    assert made_up > 300 and unsaid > 80 and placeless > 200


def test_true_captions_of_a_frame_are_its_own_and_those_that_say_no_other(script):
    shown = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    says = torch.tensor([[True, True, True], [True, True, False], [False, False, True]])
    assert script.matches(shown, says).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1]]


def test_the_axes_of_scenes_are_read_as_written():
    scenes = [world.Scene(c, "waving", p, n) for c, n, p in labels.SCENES]
    seen, shown = labels.read_scenes(np.eye(len(scenes))), labels.shown_labels(scenes)
    for name in ("character", "number", "place"):
        assert np.array_equal(seen[name], shown[name])
    assert len(set(labels.scene_captions("waving"))) == len(labels.SCENES) == 140


def test_worse_frames_are_still_alike_and_the_same_for_the_same_seed():
    frames = torch.from_numpy(theatre.draw_clips(8, seed=1).frames)
    pixels = frames.movedim(-1, 2).float() / 255
    worse = degrade(pixels, torch.Generator().manual_seed(0))
    assert torch.equal(worse, degrade(pixels, torch.Generator().manual_seed(0)))
    assert not torch.equal(worse, degrade(pixels, torch.Generator().manual_seed(1)))
    assert worse.shape == pixels.shape and worse.min() >= 0 and worse.max() <= 1
    assert 0.01 < (worse - pixels).abs().mean() < 0.12


def test_what_is_something_else_is_far_from_every_motion_with_a_name():
    named = [arms_over_a_cycle(POSERS[name]) for name in labels.NAMED_MOTIONS]
    others = labels.OTHER_MOTIONS[::40] + labels.BLENDED_MOTIONS[::12]
    for name in others:
        assert labels.label_of(name) == labels.OTHER
        arms = arms_over_a_cycle(POSERS[name])
        near_to = [motion for motion, other in zip(labels.NAMED_MOTIONS, named)
                   if distance(arms, other) < NEAR]
        assert set(near_to) <= {"walking", "bowing", "kicking"}, name     # seen from the side
    rng = np.random.default_rng(0)
    drawn = [labels.draw_any_scene(rng).motion for _ in range(2000)]
    for motions, share in ((labels.OTHER_MOTIONS, 0.15), (labels.BLENDED_MOTIONS, 0.05),
                           (labels.NAMED_MOTIONS, 0.8)):
        assert abs(np.isin(drawn, motions).mean() - share) < 0.03


def test_spoiled_latents_keep_the_clip_and_blend_its_moments():
    vae, frames = examples.load_vae(), torch.from_numpy(theatre.draw_clips(4, seed=1).frames)
    pixels = frames.movedim(-1, 2).float() / 255

    def spoil(seed: int = 0, **most: float) -> torch.Tensor:
        return spoil_latents(pixels, torch.Generator().manual_seed(seed), vae, **most)

    def change(clips: torch.Tensor) -> float:
        return clips.diff(dim=1).abs().mean().item()

    through = spoil(most_noise=0, most_average=0)
    assert (through - pixels).abs().mean() < 0.04                    # the autoencoder alone
    assert change(spoil(most_noise=0, most_average=0.9)) < 0.85 * change(through)
    assert change(spoil(most_noise=0.9, most_average=0)) > 1.15 * change(through)
    spoiled = spoil()
    assert torch.equal(spoiled, spoil()) and not torch.equal(spoiled, spoil(seed=1))
    assert spoiled.shape == pixels.shape and 0 <= spoiled.min() and spoiled.max() <= 1


def test_whitened_tubelets_are_of_equal_spread():
    frames = torch.from_numpy(theatre.draw_clips(32, seed=1).frames).movedim(-1, 2).float() / 127.5 - 1
    torch.manual_seed(0)
    model = networks.build_classifier(labels.MOTIONS)
    networks.whiten_tubelets(model, frames)
    tokens = model.videomae.embeddings.patch_embeddings(frames).detach().flatten(0, 1)       # (n d)
    assert tokens.std(0).min() > 0.3 and tokens.std(0).max() < 1.1


def test_recognizers_that_are_not_there_cannot_be_imported(run_stage, tmp_path):
    with pytest.raises(UserError, match="motion: has no recognizer in it") as refused:
        run_stage(tmp_path, "import")
    assert str(refused.value).count("no recognizer") == 2 and not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("wrong, words", [(("--easy-steps", "5", "5"), "LAST must be more than FIRST"),
                                          (("--first-shards", "0"), "'0' is not a whole number above zero"),
                                          (("--checkpoint-steps", "0"), "--checkpoint-steps: '0' is not")])
def test_wrong_numbers_are_refused(run_stage, tmp_path, wrong, words):
    with pytest.raises(UserError, match=words):
        run_stage(tmp_path, "motion", *wrong)
    assert not list(tmp_path.iterdir())
