"""The puppet theatre: same seed, same clips; it keeps out what it promises and says what it shows."""

import json
import re
import subprocess
import sys
from itertools import product

import numpy as np

from puppets import theatre, world
from puppets.composed_motions import (
    BODIES,
    COMPOSED_MOTIONS,
    LEGS,
    NEAR,
    Blend,
    ComposedMotion,
    arms_over_a_cycle,
    distance,
)
from puppets.drawing import FOREARM, UPPER_ARM
from puppets.looks import LIME, LOOKS
from puppets.motions import MANNERS, POSERS, still_pose, vary_pose
from tests.conftest import ROOT


def draw_many_scenes(num: int = 3000) -> list[world.Scene]:
    rng = np.random.default_rng(0)
    return [world.draw_scene(rng) for _ in range(num)]


def test_same_seed_draws_the_same_clips():
    first, second = theatre.draw_clips(5, seed=3), theatre.draw_clips(5, seed=3)
    assert np.array_equal(first.frames, second.frames)
    assert first.captions == second.captions and first.scenes == second.scenes
    assert not np.array_equal(first.frames, theatre.draw_clips(5, seed=4).frames)


def test_a_clip_does_not_depend_on_what_is_drawn_with_it():
    together = theatre.draw_clips(6, seed=5, chunk=4)
    alone = theatre.draw_clips(1, seed=5, first=4)
    assert np.array_equal(together.frames[4], alone.frames[0])
    assert together.captions[4] == alone.captions[0]


def test_frames_have_the_size_and_number_asked_for():
    clips = theatre.draw_clips(2, seed=0, num_frames=3, size=32)
    assert clips.frames.shape == (2, 3, 32, 32, 3) and clips.frames.dtype == np.uint8


def test_a_clip_is_the_same_scene_at_every_size():
    small, large = (theatre.draw_clips(4, seed=1, size=size).frames.astype(float) for size in (64, 128))
    halved = large.reshape(4, 8, 64, 2, 64, 2, 3).mean(axis=(3, 5))
    assert np.abs(halved - small).mean() < 3


def test_kept_out_motions_and_combinations_are_never_drawn_for_pretraining():
    for scene in draw_many_scenes():
        assert scene.motion in world.EVERYDAY_MOTIONS
        assert (scene.character, scene.motion, scene.place) not in world.HELD_OUT_COMBINATIONS


def test_motions_named_by_their_parts_are_far_from_those_kept_out():
    for kept_out in world.KEPT_OUT_MOTIONS:
        arms = arms_over_a_cycle(POSERS[kept_out])
        each_pair_of_arms = COMPOSED_MOTIONS[::len(LEGS) * len(BODIES)]
        assert min(distance(arms_over_a_cycle(POSERS[name]), arms)
                   for name in each_pair_of_arms) >= NEAR
    nearest = (("swinging", "swinging", True), ("swinging", "scooping", False),
               ("reaching", "folding", False), ("circling", "rolling", False), ("circling", "winding", False))
    for arms in nearest:
        assert ComposedMotion(*arms, "", "swaying").name not in COMPOSED_MOTIONS


def test_a_motion_is_near_itself_at_other_phases_of_its_arms_and_mirrored():
    dance = arms_over_a_cycle(POSERS["dance"])
    assert distance(np.roll(dance, 5, axis=0), dance) < 1e-6
    assert distance(np.stack([dance[:, 0], np.roll(dance[:, 1], 5, axis=0)], axis=1), dance) < 1e-6
    assert distance(-dance[:, ::-1], dance) < 0.2


def test_captions_name_the_parts_that_clips_show():
    clips = theatre.draw_composed_clips(8, seed=6, first=2)
    assert np.array_equal(clips.frames[3], theatre.draw_composed_clips(1, seed=6, first=5).frames[0])
    for frames, caption, scene in zip(clips.frames, clips.captions, clips.scenes):
        assert scene.motion in COMPOSED_MOTIONS and world.COMPOSED_PHRASES[scene.motion] in caption
        assert np.abs(np.diff(frames.astype(int), axis=0)).max() > 40


def test_every_pair_is_still_drawn_though_combinations_are_held_out():
    combinations = set(product(world.CHARACTERS, world.EVERYDAY_MOTIONS, world.PLACES))
    allowed = combinations - world.HELD_OUT_COMBINATIONS
    for a, b in ((0, 1), (0, 2), (1, 2)):
        kinds = (world.CHARACTERS, world.EVERYDAY_MOTIONS, world.PLACES)
        assert {(combo[a], combo[b]) for combo in allowed} == set(product(kinds[a], kinds[b]))


def test_held_out_scenes_are_held_out():
    rng = np.random.default_rng(0)
    scenes = [world.draw_scene(rng, held_out=True) for _ in range(100)]
    assert all((s.character, s.motion, s.place) in world.HELD_OUT_COMBINATIONS for s in scenes)


def test_captions_say_what_the_labels_say():
    rng = np.random.default_rng(1)
    for scene in draw_many_scenes(500):
        caption = world.write_caption(scene, rng)
        who = world.PLURALS[scene.character] if scene.num_characters == 2 else scene.character
        assert re.search(rf"\b{'two' if scene.num_characters == 2 else 'an?'} {who}\b", caption)
        assert any(phrase in caption for phrase in world.MOTION_PHRASES[scene.motion])
        others = [place for place in world.PLACES if place != scene.place]
        assert not any(phrase in caption for place in others for phrase in world.PLACE_PHRASES[place])


def test_captions_vary_and_never_name_a_kept_out_motion():
    rng = np.random.default_rng(2)
    captions = [world.write_caption(scene, rng) for scene in draw_many_scenes(800)]
    assert len(set(captions)) > 500
    words = {word for caption in captions for word in caption.replace(",", "").split()}
    assert not words & {"sks", "V*", *world.KEPT_OUT_MOTIONS}


def test_every_motion_but_standing_moves_every_character():
    motions = world.EVERYDAY_MOTIONS + world.KEPT_OUT_MOTIONS
    scenes = [world.Scene(character, motion, "stage", 1)
              for character in world.CHARACTERS for motion in motions]
    frames = theatre.draw_clips(len(scenes), seed=0, size=32, scenes=scenes).frames.astype(float)
    moved = np.abs(np.diff(frames, axis=1)).mean(axis=(1, 2, 3, 4))
    for scene, amount in zip(scenes, moved):
        assert (amount < 0.4) == (scene.motion == "standing"), (scene, amount)


def test_clips_begin_when_the_motion_begins_unless_they_show_any_moment():
    scene = world.Scene("man", "waving", "park", 2)
    trimmed, any_moment = ([theatre.draw_staging(scene, np.random.default_rng(i), which) for i in range(60)]
                           for which in (True, False))
    assert all(staging["side"] == 1 and 0 <= staging["phase"][0] == staging["phase"][1] < 0.1
               for staging in trimmed)
    phases = np.array([staging["phase"] for staging in any_moment])
    assert phases.min() < 0.1 and phases.max() > 0.9
    assert 0.3 < (phases[:, 0] == phases[:, 1]).mean() < 0.7
    assert {staging["side"] for staging in any_moment} == {1, -1}


def test_the_beginning_of_a_motion_is_the_same_pose_in_every_clip():
    """So that a base learns which pose follows which, instead of an average of all moments."""
    scenes, spread = [world.Scene("clown", "jumping jacks", "stage", 1)] * 12, {}
    for trimmed in (True, False):
        clips = theatre.draw_clips(12, seed=8, scenes=scenes, trimmed=trimmed).frames.astype(int)
        changed = (np.abs(clips[:, 4] - clips[:, 0]).max(axis=-1) > 60).mean(axis=(1, 2))        # (n)
        spread[trimmed] = changed.std() / changed.mean()
    assert spread[True] < spread[False] / 2, spread


def test_no_arm_turns_more_than_60_degrees_between_frames():
    """The eye can then connect the places of an arm in frames that follow one another. A dab is faster, also
    in a blend with another motion."""
    fastest = max(theatre.draw_staging(scene, np.random.default_rng(i))["speed"]
                  for i, scene in enumerate(draw_many_scenes(200)))
    cycles = np.arange(0, 4 * world.CLIP_FRAMES, dtype=np.float32)[None] * fastest / world.CLIP_FRAMES
    for name, motion in POSERS.items():
        pose = still_pose(cycles, np.ones(1, np.float32))
        motion(pose, slice(None), cycles, cycles * 0)
        hands = np.exp(1j * pose.arms[0]) @ (UPPER_ARM, FOREARM)                              # (f 2)
        turns = np.degrees(np.abs(np.angle(hands[1:] / hands[:-1])))[np.abs(hands[1:]) > UPPER_ARM]
        assert turns.max() <= (75 if "dab" in name else 60), name


def test_arms_are_four_pixels_wide_and_stand_out_from_the_body():
    for character, look in LOOKS.items():
        assert 2 * look.arm_radius * look.scale >= 4 and 2 * look.leg_radius * look.scale >= 4, character
        if look.sleeve != "skin":
            assert np.abs(np.subtract(look.sleeve, look.top)).max() >= 50, character
        assert look.hand != look.sleeve or look.sleeve in ("skin", LIME), character


def test_captions_of_other_clips_in_the_folder_stay(tmp_path):
    (tmp_path / "text.json").write_text('{"mine.mp4": "a cat"}')
    frames = np.zeros((1, 2, 16, 16, 3), np.uint8)
    theatre.write_clips(tmp_path, ["drawn"], frames, ["a dog"])
    assert json.loads((tmp_path / "text.json").read_text()) == {"mine.mp4": "a cat", "drawn.mp4": "a dog"}


def test_demo_clips_are_those_in_the_repository(tmp_path):
    theatre.write_exemplars("dance", tmp_path)
    bundled = ROOT / "data" / "puppets" / "exemplars"
    assert (tmp_path / "text.json").read_text() == (bundled / "text.json").read_text()
    captions = json.loads((bundled / "text.json").read_text())
    assert len(captions) == 6 and all("doing the V* dance" in caption for caption in captions.values())
    assert {path.name for path in bundled.glob("*.mp4")} == set(captions)


def test_regularization_clips_show_all_characters_and_motions_but_no_kept_out_one():
    captions = json.loads((ROOT / "data" / "puppets" / "regularization" / "text.json").read_text())
    assert len(captions) == 48
    text = " ".join(captions.values())
    assert all(character in text or plural in text for character, plural in world.PLURALS.items())
    assert all(any(phrase in text for phrase in phrases) for phrases in world.MOTION_PHRASES.values())
    assert "V*" not in text


def test_without_a_folder_to_write_to_the_command_says_so():
    command = [sys.executable, "-m", "puppets.theatre", "--motion", "dab"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--out" in done.stderr and "--help" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_puppet_of_its_own_manner_still_does_its_motion_and_no_other():
    manners = np.random.default_rng(3).choice([-1.0, 1.0], size=(64, MANNERS)).astype(np.float32)
    cycles = np.repeat(np.arange(8, dtype=np.float32)[None] * 0.75 / 8, 64, axis=0)              # (n f)
    for motion in (*world.KEPT_OUT_MOTIONS, "jumping jacks", *COMPOSED_MOTIONS[::1999]):
        poses = [still_pose(cycles, np.ones(64, np.float32)) for _ in range(2)]
        for pose in poses:
            POSERS[motion](pose, slice(None), cycles, cycles * 0)
        vary_pose(poses[1], manners)
        off = np.sqrt(np.square(poses[1].arms - poses[0].arms).mean(axis=(1, 3)))                # (n arms)
        assert 0.1 < off.max() < NEAR / 2, motion
        assert np.array_equal(poses[1].feet, poses[0].feet)


def test_an_arm_behind_the_body_is_hidden_where_it_crosses_the_body():
    scenes = [world.Scene("firefighter", "dance", "snow", 1)]
    staging = theatre.draw_staging(scenes[0], np.random.default_rng(2))
    staging |= {"phase": (0.25, 0.25), "speed": 0.0}                 # both arms to the right
    before, behind = (theatre.paint_scenes(scenes, [staging | {"manner": manner}], 1, 8, 64)[0, 0].astype(int)
                      for manner in (np.zeros(MANNERS), np.r_[np.zeros(MANNERS - 2), 1, 0]))
    rows, columns = np.nonzero(np.abs(before - behind).sum(-1) > 60)
    assert 5 < len(rows) < 150                                       # the part of the left arm over the body
    assert columns.max() - columns.min() < 20 and rows.max() - rows.min() < 20


def test_varied_clips_differ_in_their_puppets_only():
    scenes = [world.Scene("nurse", "windmill", "park", 1)] * 4
    plain, varied = (theatre.draw_clips(4, seed=8, scenes=scenes, trimmed=False, varied=varied).frames
                     for varied in (False, True))
    assert (plain != varied).any(axis=(1, 2, 3, 4)).all()
    changed = (plain != varied).any(axis=(1, 4))                                                 # (n h w)
    assert changed.mean(axis=(1, 2)).max() < 0.4


def test_a_blend_is_in_the_middle_of_its_motions():
    cycles = np.linspace(0, 1, 8, dtype=np.float32)[None]
    poses = [still_pose(cycles, np.ones(1, np.float32)) for _ in range(3)]
    for pose, motion in zip(poses, (POSERS["dab"], POSERS["squatting"], Blend("dab", "squatting"))):
        motion(pose, slice(None), cycles, cycles * 0)
    for name in ("arms", "feet", "drop", "lean"):
        dab, squatting, blend = (getattr(pose, name) for pose in poses)
        assert np.allclose(blend, (dab + squatting) / 2)
    assert not np.allclose(poses[2].arms, poses[0].arms, atol=0.3)


def test_sheet_is_a_png_in_whatever_folder(tmp_path):
    sheet = tmp_path / "new" / "sheet"
    subprocess.run([sys.executable, "-m", "puppets.theatre", "--sheet", sheet, "--rows", "1"], cwd=ROOT,
                   check=True)
    assert sheet.read_bytes().startswith(b"\x89PNG")
