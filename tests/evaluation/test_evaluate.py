"""evaluate_motion.py: what it reads, what it writes, what it refuses. What its numbers say is in
test_obvious_cases.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluate_motion import device, run_of_videos
from evaluation import score_report, scores, summary
from evaluation.material import mixed_notes
from evaluation.motion_words import MotionName
from evaluation.shown_videos import find_videos
from rendering.gallery import list_videos, write_page
from tests.conftest import ROOT, draw_frames, write_clip
from tests.recognizers import LABELS, make_clip, make_recognizer
from training.run_page import read_page
from utils.errors import UserError
from utils.video import write_video

EXEMPLARS = ROOT / "data" / "puppets" / "exemplars"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("recognizers")
    return make_recognizer(folder / "motion"), make_clip(folder / "clip")


@pytest.fixture
def evaluate(models, run_main):
    """Return a function that evaluates a folder: (exit code, stdout, stderr)."""
    def run(folder: Path, *arguments: object, exemplars: Path = EXEMPLARS, motion: str = "dance"):
        given = {"--recognizer": models[0], "--clip": models[1]}
        given = [part for flag, path in given.items() if flag not in arguments for part in (flag, path)]
        return run_main("evaluate_motion", "-v", folder, "--exemplars", exemplars, "--motion", motion, *given,
                        *arguments)
    return run


@pytest.fixture
def videos(tmp_path) -> Path:
    """Two videos of one prompt that asks for the motion, one of another, and two of everyday prompts."""
    folder = tmp_path / "videos"
    for name, seed in (("a_cat_doing_the_sks_dance_seed1", 1), ("a_cat_doing_the_sks_dance_seed2", 2),
                       ("a_robot_doing_the_sks_dance_seed1", 3), ("a_man_waving_seed1", 4),
                       ("a_cat_asleep_seed1", 5)):
        write_clip(folder / f"{name}.mp4", num_frames=6, seed=seed)
    return folder


def no_samples(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "config.yaml").write_text("")


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with samples of the base and two steps, a checkpoint of the first, and videos of its own."""
    run = tmp_path / "dance-2026-01-01T00-00-00"
    for step in (0, 100, 200):
        for index, name in enumerate(("a_cat_doing_the_sks_dance_seed1", "a_man_waving_seed2")):
            write_clip(run / "samples" / f"step_{step:05d}" / f"{name}.mp4", num_frames=6, seed=step + index)
    (run / "checkpoint-100").mkdir()
    (run / "checkpoint-100" / "motion.safetensors").write_bytes(b"")
    write_clip(run / "videos" / "a_dog_seed1.mp4")
    return run


def scores_of(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())


def measures_of(folder: Path, group: int = 0) -> dict:
    return scores_of(folder)["groups"][group]["measures"]


def test_every_measure_has_its_number_its_interval_and_its_videos(evaluate, videos):
    code, out, err = evaluate(videos)
    assert code == 0, err
    measures = measures_of(videos)
    assert {name: found["num"] for name, found in measures.items() if found["num"]} == {
        "motion_probability": 3, "motion_top1": 3, "text_alignment": 5, "exemplar_ratio": 3, "copies": 3,
        "diversity": 1, "temporal_consistency": 5, "frozen": 5, "named_probability": 1}
    assert measures["motion_probability"]["num_prompts"] == 2 and "3/2" in out
    assert "8/4 are 8 videos of 4 prompts" in out
    for found in measures.values():
        assert found["num"] < 2 or found["low"] <= found["mean"] <= found["high"]
    assert "motion: probability" in out and f"A guess finds one motion of {len(LABELS)}" in out
    assert "2 videos are of everyday prompts" in out and "--reference-videos" in out


def test_everyday_prompts_that_name_no_label_are_counted(evaluate, videos):
    """They have no part in "everyday: probability"."""
    write_clip(videos / "a_cat_asleep_seed2.mp4", num_frames=6)
    said = "1 of 2 everyday prompts names no label of the recognizer, such as \"a cat asleep\", so"
    code, out, err = evaluate(videos)
    assert code == 0 and f"note: {said}" in out, err
    assert scores_of(videos)["everyday"] == {"num_prompts": 2, "without_label": ["a cat asleep"]}
    code, out, err = evaluate(videos, "--recognizer", "none")
    assert code == 0 and "names no label" not in out and scores_of(videos)["everyday"] is None, err
    for path in videos.glob("a_cat_asleep*"):
        path.unlink()
    code, out, err = evaluate(videos)
    assert code == 0 and "no label of the recognizer" not in out, err
    assert scores_of(videos)["everyday"] == {"num_prompts": 1, "without_label": []}


def test_one_video_is_one_video(evaluate, videos):
    (videos / "a_man_waving_seed1.mp4").unlink()
    code, out, err = evaluate(videos, "--recognizer", "none")
    assert code == 0 and "note: 1 video is of everyday prompts." in out, err


def test_without_a_recognizer_everything_but_the_motion_is_measured(evaluate, videos, run, tmp_path):
    """A new motion has a label in no public classifier."""
    base = shutil.copytree(videos, tmp_path / "base")
    code, out, err = evaluate(videos, "--reference-videos", base)
    assert code == 0, err
    judged = measures_of(videos)
    code, out, err = evaluate(videos, "--reference-videos", base, "--recognizer", "none")
    assert code == 0, err
    measures = measures_of(videos)
    of_motion = {"motion_probability", "motion_top1", "named_probability", "kept_top1", "kept_change"}
    assert {name for name, found in judged.items() if found["num"]} - {
        name for name, found in measures.items() if found["num"]} == of_motion
    assert {name: found for name, found in measures.items() if name not in of_motion} == {
        name: found for name, found in judged.items() if name not in of_motion}
    document = scores_of(videos)
    assert document["recognizer"] is None and document["labels"] == []
    assert "No recognizer has looked for the motion" in out and "A guess" not in out

    code, out, err = evaluate(run, "--recognizer", "none")
    assert code == 0, err
    assert "step to use: none; no recognizer has looked for the motion. Look at the samples." in out
    assert (run / "scores.png").is_file()


def test_unknown_motion_says_how_to_go_on(evaluate, videos):
    code, _, err = evaluate(videos, motion="polka")
    assert code == 2 and "--recognizer none" in err and len(err.splitlines()) == 1


def test_a_row_of_the_table_is_a_column_of_the_scores(evaluate, videos, monkeypatch):
    row = scores.Measure("half", "a half", "any", lambda one: 0.5, gallery="half")
    measures = (*scores.MEASURES, row)
    for module in (scores, summary, score_report):
        monkeypatch.setattr(module, "MEASURES", measures)
    code, out, err = evaluate(videos)
    assert code == 0, err
    assert "\na half " in out and measures_of(videos)["half"]["num"] == 5
    assert all(video["scores"]["half"] == 0.5 for video in list_videos(videos))


def test_text_alignment_is_with_the_prompt_without_its_motion(evaluate, videos):
    evaluate(videos)
    texts = {video["file"]: (video["asks_for_motion"], video["text"])
             for video in scores_of(videos)["videos"]}
    assert texts["a_cat_doing_the_sks_dance_seed1.mp4"] == (True, "a cat")
    assert texts["a_man_waving_seed1.mp4"] == (False, "a man waving")


def test_a_motion_with_another_name_than_its_label_is_left_out_by_its_phrase(evaluate, videos):
    """The recognizer calls it jumping, the prompts call it the V* dance."""
    code, out, err = evaluate(videos, "--motion-phrase", "doing the V* dance", motion="jumping")
    assert code == 0, err
    document = scores_of(videos)
    assert [video["text"] for video in document["videos"] if video["asks_for_motion"]] == [
        "a cat", "a cat", "a robot"]
    assert document["motion_phrase"] == "doing the V* dance"
    assert '"a cat" for "a cat doing the sks dance"' in out and "--motion-phrase" not in out
    assert "note: no prompt calls the motion 'jumping', so text alignment counts" in evaluate(
        videos, motion="jumping")[1]


def test_words_of_several_motions_are_left_out(evaluate, videos):
    for path in videos.glob("*dance*"):
        path.unlink()
    write_video(videos / "a_cat_doing_the_zwx_dance_seed1.mp4", draw_frames(6, 64, 64), 8,
                {"motion": ["a", "b"], "strength": [1.0, 1.0], "placeholder_token": "sks,zwx"})
    code, _, err = evaluate(videos)
    assert code == 0, err
    assert [video["text"] for video in scores_of(videos)["videos"] if video["asks_for_motion"]] == ["a cat"]


def test_everyday_prompts_are_compared_with_the_base(evaluate, videos, tmp_path):
    base = shutil.copytree(videos, tmp_path / "base")
    (base / "a_cat_asleep_seed1.mp4").rename(base / "a_cat_asleep_seed9.mp4")
    code, out, err = evaluate(videos, "--reference-videos", base)
    assert code == 0, err
    measures = measures_of(videos)
    assert measures["kept_top1"] == {"mean": 1.0, "low": None, "high": None, "num": 1, "num_prompts": 1}
    assert measures["kept_similarity"]["mean"] == pytest.approx(1) and measures["kept_change"]["mean"] == 0
    assert "1 of 2 videos of everyday prompts have no reference" in out


def test_what_no_row_shows_is_not_explained(evaluate, videos, tmp_path):
    base = shutil.copytree(videos, tmp_path / "base")
    for path in videos.glob("*sks*.mp4"):
        path.unlink()
    code, out, err = evaluate(videos, "--reference-videos", base)
    assert code == 0, err
    assert "text alignment" in out and "without its motion" not in out and "distance" not in out


def test_everyday_videos_alone_are_compared_with_the_base(evaluate, videos, tmp_path):
    base = shutil.copytree(videos, tmp_path / "base")
    only_everyday(videos)
    code, out, err = evaluate(videos, "--reference-videos", base)
    assert code == 0, err
    assert measures_of(videos)["kept_top1"]["num"] == 2 and "no prompt asks for the motion" in out


def test_reference_without_a_common_prompt_is_refused(evaluate, videos, tmp_path):
    write_clip(tmp_path / "base" / "a_dog_seed1.mp4")
    code, _, err = evaluate(videos, "--reference-videos", tmp_path / "base")
    assert code == 2 and "no video of an everyday prompt and seed" in err


def test_step_0_of_a_reference_run_is_the_base_whatever_its_last_step(evaluate, videos, run):
    for step in (0, 200):   # the same prompt and seed in both; step 0 shows just what is measured
        shutil.copy(videos / "a_man_waving_seed1.mp4", run / "samples" / f"step_{step:05d}")
    write_clip(run / "samples" / "step_00200" / "a_man_waving_seed1.mp4", num_frames=6, seed=77)
    code, _, err = evaluate(videos, "--reference-videos", run)
    assert code == 0, err
    assert measures_of(videos)["kept_similarity"]["mean"] == pytest.approx(1)


def test_reference_run_without_step_0_is_refused(evaluate, videos, run):
    shutil.rmtree(run / "samples" / "step_00000")
    code, _, err = evaluate(videos, "--reference-videos", run)
    assert code == 2 and "has samples of tuned steps only" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("made_with, code", [
    ({"motion": "results/dance"}, 2), ({"motion": "results/dance", "strength": 0.5}, 2),
    ({"motion": "results/dance", "strength": 0.0}, 0), ({"motion": None}, 0),
    ({"motion": ["a", "b"], "strength": [0.0, 0.5]}, 2), ({"motion": ["a", "b"], "strength": [0.0, 0.0]}, 0)])
def test_reference_rendered_with_a_tuned_motion_is_refused(evaluate, videos, tmp_path, made_with, code):
    write_video(tmp_path / "base" / "a_man_waving_seed1.mp4", draw_frames(6, 64, 64), 8, made_with)
    found, _, err = evaluate(videos, "--reference-videos", tmp_path / "base")
    assert found == code
    assert not code or "was rendered with a tuned motion" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("settings, num_frames, width, said", [
    ({"guidance_scale": 9.0}, 6, 64, "guidance_scale '9.0' instead of '4.0'"),
    ({"base_fingerprint": "other"}, 6, 64, "base_fingerprint 'other' instead of 'ours'"),
    ({}, 8, 64, "frames 8 instead of 6"), ({}, 6, 96, "size '96x64' instead of '64x64'"),
    ({"batch_size": 2, "precision": "bf16"}, 6, 64, None)])
def test_reference_rendered_in_another_way_is_refused(evaluate, videos, tmp_path, settings, num_frames, width,
                                                      said):
    """Not the motion alone would then tell the two apart."""
    made_with = {"guidance_scale": 4.0, "base_fingerprint": "ours"}
    write_video(videos / "a_man_waving_seed1.mp4", draw_frames(6, 64, 64), 8, made_with)
    write_video(tmp_path / "base" / "a_man_waving_seed1.mp4", draw_frames(num_frames, width, 64), 8,
                {**made_with, **settings})
    code, _, err = evaluate(videos, "--reference-videos", tmp_path / "base")
    assert code == (2 if said else 0), err
    assert not said or f"with {said}. Render the untuned base" in err and len(err.splitlines()) == 1


def rendered(path: Path, **made_with: object) -> None:
    """Write a video with the record of one that was rendered with a learned motion."""
    write_video(path, draw_frames(6, 64, 64), 8, {
        "motion": "results/a", "motion_digest": "a1", "step": 400, "strength": 1.0, "guidance_scale": 4.0,
        "base": "models/b", "base_fingerprint": "b1", "placeholder_token": "sks", **made_with})


def test_videos_of_different_makings_in_one_folder_are_told(evaluate, tmp_path):
    """As when a second run is rendered into the folder of a first one, with other prompts."""
    folder = tmp_path / "mixed"
    for index, animal in enumerate(("cat", "dog", "bear")):
        rendered(folder / f"a_sks_{animal}_seed{index}.mp4")
    for index, animal in enumerate(("fox", "cow")):
        rendered(folder / f"a_sks_{animal}_seed{index}.mp4", motion="results/b", motion_digest="c2", step=100,
                 strength=0.5, guidance_scale=9.0)
    write_clip(folder / "a_sks_hen_seed1.mp4", num_frames=6)   # without a record
    code, out, err = evaluate(folder, "--recognizer", "none")
    assert code == 0, err
    (note,) = [line for line in out.splitlines() if "different ways" in line]
    assert note.startswith(f"note: {folder}: its 6 videos were rendered in different ways, and every mean ")
    assert ": motion results/a in 3, results/b in 2; step 400 in 3, 100 in 2; strength 1.0 in 3, 0.5 in 2; " \
           "guidance_scale 4.0 in 3, 9.0 in 2. To measure one kind alone" in note
    for path in folder.glob("*_sks_[fch]o[xw]_*"):   # as the note says
        (folder / "b").mkdir(exist_ok=True)
        path.rename(folder / "b" / path.name)
    code, out, err = evaluate(folder, "--recognizer", "none")
    assert code == 0 and "different ways" not in out, err
    assert [group["name"] for group in scores_of(folder)["groups"]] == ["", "b"]


@pytest.mark.parametrize("makings, said", [
    ([{}, {"motion": "moved/a"}, {"base": "moved/b", "strength": 1.0}], None),   # the same files elsewhere
    ([{}, {"motion_digest": "c2"}], "motion results/a (a1) in 1, results/a (c2) in 1."),
    ([{"strength": 0.0}, {"motion": None}, {"strength": 0.0, "motion": "results/c"}], None),
    ([{}, {}, {"motion": None}], "motion results/a in 2, none (untuned base) in 1."),
    ([{"motion": ["a", "b"], "strength": [1.0, 0.5], "motion_digest": ["d", "e"]},
      {"motion": ["a", "b"], "strength": [1.0, 1.0], "motion_digest": ["d", "e"]}],
     "strength 1.0 + 0.5 in 1, 1.0 + 1.0 in 1."),
    ([{"strength": number} for number in range(1, 7)], "strength 1 in 1, 2 in 1, 3 in 1, 4 in 1 and 2 more."),
    ([{"negative_prompt": ""}, {"negative_prompt": "blurred"}], "negative_prompt none in 1, blurred in 1.")])
def test_only_what_changes_a_video_makes_a_difference(tmp_path, makings, said):
    for index, made_with in enumerate(makings):
        rendered(tmp_path / f"a_sks_cat_seed{index}.mp4", **made_with)
    notes = mixed_notes(find_videos(tmp_path, MotionName("dance")))
    assert [said in note for note in notes] == ([True] if said else []), notes


def test_two_references_of_one_video_are_refused(evaluate, videos, tmp_path):
    for folder in ("a", "b"):
        shutil.copytree(videos, tmp_path / "base" / folder)
    code, _, err = evaluate(videos, "--reference-videos", tmp_path / "base")
    assert code == 2 and "have the same prompt and seed" in err and len(err.splitlines()) == 1


def test_run_has_a_column_a_step_a_plot_and_a_step_to_use(evaluate, run):
    code, out, err = evaluate(run)
    assert code == 0, err
    document = scores_of(run)
    assert [(group["name"], group["step"], group["num_videos"]) for group in document["groups"]] == [
        ("step 0 (base)", 0, 2), ("step 100", 100, 2), ("step 200", 200, 2)]
    assert measures_of(run, 1)["kept_top1"]["num"] == 1      # step 0 is the reference
    assert measures_of(run, 0)["kept_top1"]["num"] == 0
    assert "step to use: " in out and document["step"]["reason"] in out
    assert (run / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_page_of_the_run_shows_the_scores_by_step(evaluate, run):
    write_page(run / "run.html", "run.html", {"title": run.name, "config": {"placeholder_token": "sks"}})
    code, out, err = evaluate(run)
    assert code == 0 and f"the run: {(run / 'run.html').as_uri()}" in out, err
    content = read_page(run)
    assert content["scores"]["step"] == scores_of(run)["step"]["step"] and content["title"] == run.name
    panels = {panel["title"]: panel["curves"] for panel in content["scores"]["panels"]}
    found = measures_of(run, 1)["motion_probability"]["mean"]
    motion = [curve["points"] for curves in panels.values() for curve in curves
              if curve["label"] == "probability"]
    assert [point[0] for point in motion[0]] == [0, 100, 200]
    assert motion[0][1][1] == pytest.approx(found, abs=1e-4)
    assert [each["step"] for each in content["samples"]] == [0, 100, 200]
    assert evaluate(run / "samples")[0] == 0   # the same page


def test_what_was_measured_is_written_before_damaged_weights_are_named(evaluate, run):
    shutil.rmtree(run / "checkpoint-100")
    (run / "motion.safetensors").write_bytes(b"cut off")
    shutil.rmtree(run / "samples" / "step_00000")   # one of the others is the step to use, then
    code, out, err = evaluate(run)
    assert code == 2 and len(err.splitlines()) == 1 and "motion.safetensors: cannot be read" in err
    assert f"step to use: {scores_of(run)['step']['step']}; " in out and "scores.json" in out
    assert (run / "scores.png").exists() and '"text":' in (run / "video_lightbox.html").read_text()


def test_samples_folder_and_one_step_of_it_are_measured_too(evaluate, run):
    assert evaluate(run / "samples")[0] == 0
    assert [group["step"] for group in scores_of(run / "samples")["groups"]] == [0, 100, 200]
    assert evaluate(run / "samples" / "step_00100")[0] == 0
    assert len(scores_of(run / "samples" / "step_00100")["groups"]) == 1


def test_samples_are_those_of_their_run_from_inside_their_folder(evaluate, run, monkeypatch):
    monkeypatch.chdir(run / "samples")
    assert run_of_videos(Path(".")) == run == run_of_videos(run) == run_of_videos(run / "samples")
    assert run_of_videos(Path("../samples")) == run_of_videos(Path("..")) == Path("..")


def test_folder_of_several_runs_has_no_step_to_use(evaluate, run, tmp_path):
    shutil.copytree(run, run.with_name("dance-2026-01-02T00-00-00"))
    code, out, err = evaluate(tmp_path, "--recognizer", "none")
    assert code == 2 and len(err.splitlines()) == 1 and not (tmp_path / "scores.json").exists()
    assert f"{tmp_path} holds samples of 2 runs, {run.name}, dance-2026-01-02T00-00-00. Name one" in err


def test_scores_stand_in_the_gallery_beside_what_was_there(evaluate, videos):
    there = {"a_man_waving_seed1.mp4": {"prompt": "a man, waving", "scores": {"votes": 3, "motion": 9}},
             "gone.mp4": {"seed": 4}}
    (videos / "videos.json").write_text(json.dumps(there))
    assert evaluate(videos)[0] == 0
    listed = {video["file"]: video for video in list_videos(videos)}
    assert listed["a_man_waving_seed1.mp4"]["prompt"] == "a man, waving"
    assert set(listed["a_man_waving_seed1.mp4"]["scores"]) == {"votes", "text", "motion named"}
    dance = listed["a_cat_doing_the_sks_dance_seed1.mp4"]["scores"]
    assert set(dance) == {"motion", "text", "distance"} and 0 < dance["motion"] < 1
    assert json.loads((videos / "videos.json").read_text())["gone.mp4"] == {"seed": 4}
    assert '"motion":' in (videos / "video_lightbox.html").read_text()


def test_gallery_of_the_run_shows_scores_given_to_one_step(evaluate, run):
    from rendering.gallery import write_gallery

    write_gallery(run)
    evaluate(run / "samples" / "step_00200")
    assert '"text":' in (run / "video_lightbox.html").read_text()


def test_same_again_gives_the_same_scores(evaluate, videos):
    evaluate(videos)
    before = (videos / "scores.json").read_bytes()
    evaluate(videos, "--batch-size", "2")
    again = scores_of(videos)
    evaluate(videos)
    assert (videos / "scores.json").read_bytes() == before
    assert again["groups"][0]["measures"]["text_alignment"]["mean"] == pytest.approx(
        measures_of(videos)["text_alignment"]["mean"], abs=1e-5)


def test_placeholder_of_the_records_is_left_out_of_the_text(evaluate, tmp_path):
    frames = draw_frames(6, 64, 64)
    write_video(tmp_path / "v" / "a_zwx_seed1.mp4", frames, 8,
                {"prompt": "a cat zwx in the sun", "seed": 1, "placeholder_token": "zwx"})
    (tmp_path / "v" / "text.json").write_text('{"a_zwx_seed1.mp4": "a cat zwx in the sun"}')
    assert evaluate(tmp_path / "v")[0] == 0
    assert scores_of(tmp_path / "v")["videos"][0]["text"] == "a cat in the sun"


def test_video_that_was_copied_alone_is_measured_by_the_prompt_in_it(tmp_path):
    """Its name is shortened, and has a digest in it where letters were lost."""
    frames, prompt = draw_frames(6, 64, 64), "a cat/dog zwx in the sun"
    write_video(tmp_path / "a_cat_dog_zwx_in-1234abcd_seed1.mp4", frames, 8,
                {"prompt": prompt, "seed": 1, "placeholder_token": "zwx"})
    (video,) = find_videos(tmp_path, MotionName("dance", None))
    assert (video.prompt, video.seed, video.shows_motion) == (prompt, 1, True)
    (tmp_path / "text.json").write_text('{"a_cat_dog_zwx_in-1234abcd_seed1.mp4": "a cow"}')
    assert find_videos(tmp_path, MotionName("dance", None))[0].prompt == "a cow"


def test_generation_records_the_placeholder(tiny_base, run_main, tmp_path):
    from utils.video import video_metadata

    run_main("generate_pretrained", "-m", tiny_base, "-o", tmp_path, "-p", "a V* cat", "--steps", "1",
             "-r", "64", "-d", "2")
    assert video_metadata(next(tmp_path.glob("*.mp4")))["placeholder_token"] == "sks"


def test_frozen_videos_are_counted(evaluate, tmp_path):
    frames = draw_frames(1, 64, 64).repeat(6, axis=0)
    write_video(tmp_path / "a_sks_cat_seed1.mp4", frames, 8, {})
    evaluate(tmp_path)
    measures = measures_of(tmp_path)
    assert measures["frozen"]["mean"] == 1 and measures["temporal_consistency"]["mean"] > 0.99


def test_single_frame_is_not_called_frozen(evaluate, tmp_path):
    write_clip(tmp_path / "a_sks_cat_seed1.mp4", 1)
    write_clip(tmp_path / "a_sks_dog_seed1.mp4", 6)
    code, _, err = evaluate(tmp_path)
    assert code == 0, err
    measures = measures_of(tmp_path)
    assert measures["frozen"]["num"] == measures["temporal_consistency"]["num"] == 1
    assert measures["frozen"]["mean"] == 0


def test_one_exemplar_gives_distances_but_no_copies(evaluate, videos, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(EXEMPLARS / "dance_man_park.mp4", folder)
    code, out, _ = evaluate(videos, exemplars=folder)
    assert code == 0 and "no copies are told" in out and measures_of(videos)["copies"]["num"] == 0


def test_exemplars_that_look_alike_give_no_copies(evaluate, videos, tmp_path):
    for place in ("park", "snow"):
        (tmp_path / "alike").mkdir(exist_ok=True)
        shutil.copy(EXEMPLARS / "dance_man_park.mp4", tmp_path / "alike" / f"man_{place}.mp4")
        (tmp_path / "alike" / f"man_{place}.txt").write_text(f"a man doing the V* dance in the {place}")
    code, out, _ = evaluate(videos, exemplars=tmp_path / "alike")
    assert code == 0 and "or scenes that look alike" in out and "no copies are told" in out
    measures = measures_of(videos)
    assert measures["copies"]["num"] == measures["exemplar_ratio"]["num"] == 0
    assert scores_of(videos)["copying"]["spacing"] is None


def test_videos_of_another_rate_do_not_change_the_distance_from_exemplars(evaluate, tmp_path):
    exemplars = tmp_path / "exemplars"
    for seed in (1, 2, 3):
        write_clip(exemplars / f"{seed}.mp4", 40, fps=30, seed=seed, caption=f"man {seed} doing the V* dance")
    for name, fps in (("others", 30), ("robots", 8)):
        write_clip(tmp_path / "both" / name / "a_cat_doing_the_sks_dance_seed1.mp4", 8, fps=fps, seed=1)
    shutil.copytree(tmp_path / "both" / "robots", tmp_path / "alone" / "robots")
    scores = {}
    for folder in (tmp_path / "both", tmp_path / "alone"):
        code, _, err = evaluate(folder, "--recognizer", "none", exemplars=exemplars)
        assert code == 0, err
        scores[folder.name] = scores_of(folder)["videos"][-1]["scores"]
    assert scores["both"] == pytest.approx(scores["alone"], abs=1e-5)


def test_names_that_are_not_utf8_are_measured(evaluate, run, tmp_path):
    bad = os.fsdecode(b"caf\xe9")
    try:
        run = run.rename(tmp_path / f"{bad}-2026-01-01T00-00-00")
    except OSError:
        pytest.skip("this file system keeps names in Unicode")
    for step in (0, 100):
        name = f"{bad}_doing_the_sks_dance_seed1.mp4"
        write_clip(run / "samples" / f"step_{step:05d}" / name, 6, seed=step)
    exemplars = tmp_path / bad
    for seed in (1, 2):
        write_clip(exemplars / f"{bad}{seed}.mp4", seed=seed, caption=f"man {seed} doing the V* dance")
    code, _, err = evaluate(run, exemplars=exemplars)
    assert code == 0, err
    document = scores_of(run)
    assert document["exemplars"] == str(exemplars) and document["videos"][-3]["text"] == bad
    assert (run / "scores.png").is_file() and "caf\\udce9" in (run / "video_lightbox.html").read_text()


def break_video(folder: Path) -> None:
    path = folder / "a_cat_doing_the_sks_dance_seed2.mp4"
    path.write_bytes(path.read_bytes()[:900])


def only_everyday(folder: Path) -> None:
    for path in folder.glob("*dance*.mp4"):
        path.unlink()


def no_classifier(folder: Path) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel

    VideoMAEModel(VideoMAEConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
                                 intermediate_size=16)).save_pretrained(folder.parent / "no_classifier")


@pytest.mark.parametrize("spoil, arguments, words", [
    (break_video, [], "a_cat_doing_the_sks_dance_seed2.mp4: is cut off"),
    (lambda folder: (folder / "bad.mp4").write_bytes(b"no video" * 99), [], "bad.mp4: is not a video"),
    (lambda folder: shutil.rmtree(folder), [], "does not exist"),
    (lambda folder: (shutil.rmtree(folder), folder.write_bytes(b"")), [],
     "--videos: {tmp}/videos is a file. Name a folder of videos"),
    (None, ["--exemplars", "{recognizer}/config.json"], "config.json is a file. Name the folder of clips"),
    (lambda folder: [path.unlink() for path in folder.iterdir()], [], "holds no videos"),
    (no_samples, [], "is a run without samples. Train with validation_steps='[...]', or render"),
    (only_everyday, [], "no prompt asks for the motion"),
    (None, ["--motion", "polka"], "knows no motion 'polka', only dance, walking"),
    (None, ["--recognizer", "{clip}"], "is a CLIPModel, not a video classifier"),
    (no_classifier, ["--recognizer", "{tmp}/no_classifier"], "is a VideoMAEModel, not a video classifier"),
    (None, ["--recognizer", "{tmp}/nowhere"], "nowhere: does not exist"),
    (None, ["--clip", "{recognizer}"], "not a CLIPModel"),
    (None, ["--exemplars", "{tmp}/nowhere"], "--exemplars: {tmp}/nowhere does not exist"),
    (None, ["--exemplars", "{tmp}"], "holds no clips"),
    (None, ["--reference-videos", "{tmp}/nowhere"], "--reference-videos: {tmp}/nowhere does not exist"),
    (None, ["--device", "abacus"], "--device abacus: is not available here"),
    (None, ["--device", "cpu:x"], "--device cpu:x: is not available here"),
    (None, ["--motion-phrase", " "], "--motion-phrase is empty"),
    (None, ["--batch-size", "0"], "--batch-size: '0' is not a whole number above zero"),
    (lambda folder: (folder / "videos.json").write_text("{"), [], "videos.json: cannot be read"),
    (lambda folder: (folder / "videos.json").write_text("[]"), [], "videos.json: is not a JSON object"),
])
def test_mistakes_are_one_line_and_code_2(evaluate, videos, models, tmp_path, spoil, arguments, words):
    if spoil:
        spoil(videos)
    names = {"tmp": str(tmp_path), "recognizer": str(models[0]), "clip": str(models[1])}
    arguments = [part.format(**names) for part in arguments]
    code, out, err = evaluate(videos, *arguments)
    assert code == 2 and words.format(**names) in err and len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err and not list(videos.glob("scores.json"))


def test_everything_wrong_is_said_at_once(evaluate, videos, tmp_path):
    break_video(videos)
    (videos / "bad.mp4").write_bytes(b"")
    code, _, err = evaluate(videos, "--recognizer", tmp_path / "nowhere", exemplars=tmp_path / "none")
    assert code == 2 and len(err.strip().splitlines()) == 4
    assert "bad.mp4: is empty" in err and "seed2.mp4: is cut off" in err and "--exemplars" in err


def test_broken_exemplar_is_named(evaluate, videos, tmp_path):
    exemplars = shutil.copytree(EXEMPLARS, tmp_path / "exemplars")
    (exemplars / "dance_man_park.mp4").write_bytes(b"x" * 2000)
    code, _, err = evaluate(videos, exemplars=exemplars)
    assert code == 2 and "dance_man_park.mp4: is not a video" in err


def tear(path: Path) -> None:
    """Damage the pictures of a video, but nothing that says where they are."""
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + 800
    content[middle : middle + 40] = b"\x55" * 40
    path.write_bytes(content)


def test_damaged_videos_and_exemplars_are_named(evaluate, videos, tmp_path):
    base = shutil.copytree(videos, tmp_path / "base")
    torn = [videos / "a_cat_doing_the_sks_dance_seed1.mp4", base / "a_man_waving_seed1.mp4",
            write_clip(tmp_path / "exemplars" / "torn.mp4", 20, width=96, caption="a man doing the V* dance")]
    for path in torn:
        tear(path)
    write_clip(tmp_path / "exemplars" / "whole.mp4", 20, width=96, seed=5, caption="a cat doing the V* dance")
    code, out, err = evaluate(videos, "--recognizer", "none", "--reference-videos", base,
                              exemplars=tmp_path / "exemplars")
    assert code == 0, err
    named = [line for line in out.splitlines() if "the decoder found" in line]
    assert [line.partition(": the decoder found it damaged (")[0] for line in named] == [
        f"note: {path}" for path in torn]
    assert all(line.endswith("). Look at it, or copy it again.") for line in named)


def test_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [device(wanted) for wanted in ("cuda:1", "cpu:0", None)] == ["cuda:1", "cpu:0", "cuda"]
    for wanted in ("cuda:2", "cuda:x", "cuda:", "cpu:1"):
        with pytest.raises(UserError, match=f"--device {wanted}: is not .* from cuda, cuda:0, cuda:1, cpu,"):
            device(wanted)


def test_all_exemplars_with_empty_captions_are_named(evaluate, videos, tmp_path):
    for name, caption in (("a", ""), ("b", " "), ("c", "a man")):
        write_clip(tmp_path / "exemplars" / f"{name}.mp4", caption=caption)
    code, _, err = evaluate(videos, exemplars=tmp_path / "exemplars")
    assert code == 2 and len(err.splitlines()) == 2 and "a.txt: is empty" in err and "b.txt: is empty" in err


def test_script_ends_with_code_2_and_without_a_traceback(tmp_path):
    done = subprocess.run([sys.executable, "evaluate_motion.py", "-v", tmp_path, "--exemplars", EXEMPLARS,
                           "--motion", " "], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "--motion is empty. See evaluate_motion.py --help.\n"
