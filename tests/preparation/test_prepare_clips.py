"""prepare_clips.py as it is typed: footage in, a data folder out."""

import json
import shlex
import shutil

import numpy as np
import pytest

from preparation.analysis import analyse
from preparation.everyday import kind_of
from preparation.footage import CUT_VERSION, write_cuts
from tests.conftest import ROOT
from tests.preparation.films import black, film, scene
from training.config_loading import load_config
from utils.files import file_digest
from utils.video import probe, video_metadata

SMALL = ("--seconds", 1)
DANCE = ("--motion", "dance", "--subject", "a man")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(f"output_dir: {tmp_path / 'results'}\n"
                    "train_data: {width: 64, height: 64, n_sample_frames: 8, fps: 24}\n")
    return path


@pytest.fixture
def footage(all_footage, tmp_path):
    return shutil.copytree(all_footage, tmp_path / "footage")


@pytest.fixture(scope="session")
def all_footage(tmp_path_factory):
    """Three scenes with black between them in one film, and files that cannot be used."""
    folder = tmp_path_factory.mktemp("footage")
    film(folder / "film.mp4", scene(50, 1), black(12), scene(40, 2), black(12), scene(45, 3))
    (folder / "copy.mp4").write_bytes((folder / "film.mp4").read_bytes())
    film(folder / "black.mp4", black(30))
    film(folder / "still.mp4", np.repeat(scene(1, 4), 30, axis=0))
    film(folder / "tiny.mp4", scene(30, 5, (32, 24)))
    (folder / "empty.mp4").touch()
    (folder / "text.mov").write_text("no video")
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")
    return folder


def text(folder):
    return json.loads((folder / "text.json").read_text())


def test_folder_trains_without_a_remark_and_every_file_is_accounted_for(run_main, tmp_path, footage, config,
                                                                           tiny_base):
    out = tmp_path / "clips"
    code, said, _ = run_main("prepare_clips", footage, "-o", out, *DANCE,
                             "--config", config, *SMALL)
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    status = {entry["file"].rpartition("/")[2]: (entry["status"], entry["why"]) for entry in report["inputs"]}
    assert {name for name, (what, _) in status.items() if what == "unreadable"} == {
        "empty.mp4", "text.mov", "playlist.mp4"}
    assert status["black.mp4"] == ("left out", "black, or fading to or from black")
    assert status["still.mp4"] == ("left out", "a still picture")
    assert "smaller than the trained size" in status["tiny.mp4"][1]
    # of two equal files the first by name is used
    assert status["copy.mp4"] == ("used", "") and "the same file as" in status["film.mp4"][1]
    used = next(entry for entry in report["inputs"] if entry["file"].endswith("copy.mp4"))
    assert [(shot["start"], shot["end"]) for shot in used["shots"]] == [(0, 50), (62, 102), (114, 159)]
    assert text(out) == {clip["file"]: "a man doing the V* dance" for clip in report["clips"]}
    assert all(probe(out / name).num_frames == 24 for name in text(out)) and len(text(out)) >= 3
    assert f"train_data.path={out}" in said and "review.html" in said

    code, said, _ = run_main("train_model", "--config", config, f"train_data.path={out}",
                             f"pretrained_model_path={tiny_base}",
                             "validation_data.prompt=a robot doing the V* dance", "--dry-run")
    assert code == 0 and "note:" not in said and f"{len(text(out))} exemplar clips" in said


def test_same_command_does_nothing_twice_and_keeps_edits(run_main, tmp_path, footage, config, monkeypatch):
    out = tmp_path / "clips"
    command = ("prepare_clips", footage / "film.mp4", "-o", out, *DANCE,
               "--config", config, *SMALL)
    run_main(*command)
    (first, *others) = text(out)
    edited = text(out) | {first: "a clown doing the V* dance"}
    del edited[others[0]]
    (tmp_path / "choice.json").write_text(json.dumps(edited))
    code, said, _ = run_main("prepare_clips", "-o", out, "--keep", tmp_path / "choice.json")
    assert code == 0 and f"--config {config} train_data.path={out}" in said
    monkeypatch.setattr("preparation.analysis._measure", None)
    monkeypatch.setattr("preparation.making.write_cuts", None)
    code, _, said = run_main(*command)
    assert (code, said) == (0, "") and text(out) == edited
    assert sorted(path.name for path in out.glob("*.mp4")) == sorted(edited)


def test_clips_of_an_earlier_way_to_cut_are_cut_again(run_main, tmp_path, footage, config, monkeypatch):
    out = tmp_path / "clips"
    command = ("prepare_clips", footage / "film.mp4", "-o", out, *DANCE, "--config", config)
    monkeypatch.setattr("preparation.making.CUT_VERSION", 0)
    run_main(*command)
    monkeypatch.undo()
    run_main(*command)
    assert {video_metadata(path)["version"] for path in out.glob("*.mp4")} == {CUT_VERSION}


def test_run_that_finds_nothing_leaves_the_folder_as_it_was(run_main, tmp_path, footage, config):
    out = tmp_path / "clips"
    command = ("prepare_clips", footage / "film.mp4", "-o", out, *DANCE, "--config", config)
    run_main(*command)
    before = {path.name: path.read_bytes() for path in out.glob("[!.]*")}
    code, said, error = run_main(*command, "--fps", 60)
    assert code == 2 and "--fps 24 would use it" in said and "stays as it was" in error
    assert {path.name: path.read_bytes() for path in out.glob("[!.]*")} == before


def test_captions_and_clips_of_the_users_own_stay(run_main, tmp_path, footage, config):
    out = tmp_path / "clips"
    command = ("prepare_clips", footage / "film.mp4", "-o", out, *DANCE, "--config", config)
    run_main(*command)
    (first, *others) = text(out)
    shutil.copy(out / first, out / "copied.mp4")
    film(out / "mine.mp4", scene(30, 6))
    mine = {first: ["a clown doing the V* dance", "the V* dance"], "mine.mp4": ["a cat", "a dog"],
            "copied": "a cow"}
    (out / "text.json").write_text(json.dumps(text(out) | mine))
    for arguments in (command[1:], ("-o", out, "--keep")):
        assert run_main("prepare_clips", *arguments)[0] == 0
        assert text(out) == dict.fromkeys(others, "a man doing the V* dance") | mine
        assert {path.name for path in out.glob("*.mp4")} == {first, *others, "copied.mp4", "mine.mp4"}
    (tmp_path / "none.json").write_text(json.dumps({"mine.mp4": "a bird"}))
    code, _, error = run_main("prepare_clips", "-o", out, "--keep", tmp_path / "none.json")
    assert code == 2 and "keeps no clip" in error


def test_removed_clip_that_the_user_puts_back_stays(run_main, tmp_path, footage, config):
    out = tmp_path / "clips"
    command = ("prepare_clips", footage / "film.mp4", "-o", out, *DANCE, "--config", config)
    run_main(*command)
    (first, second, *_) = text(out)
    (out / "text.json").write_text(json.dumps(text(out) | {second: "a clown doing the V* dance"}))
    shutil.copy(out / second, tmp_path)
    run_main(*command, "--num", 1)
    assert not (out / second).exists()
    shutil.copy(tmp_path / second, out)
    (out / "text.json").write_text(json.dumps(text(out) | {second: "a bear doing the V* dance"}))
    run_main(*command, "--num", 1)
    assert (out / second).exists() and text(out)[second] == "a bear doing the V* dance"


def test_decisions_on_clips_that_are_not_chosen_come_back_with_them(run_main, tmp_path, footage, config):
    out, other = tmp_path / "clips", film(tmp_path / "other.mp4", scene(60, 8, speed=1))
    command = ("prepare_clips", footage / "film.mp4", "-o", out, *DANCE, "--config", config, *SMALL)
    run_main(*command)
    (first, second, *others) = text(out)
    edited = dict.fromkeys((first, *others), "a clown doing the V* dance")
    (tmp_path / "choice.json").write_text(json.dumps(edited))
    run_main("prepare_clips", "-o", out, "--keep", tmp_path / "choice.json")
    (out / "text.json").write_text(json.dumps(edited | {first: "a bear doing the V* dance"}))
    edited[first] = "a bear doing the V* dance"
    code, said, _ = run_main(*command, "--num", 1)
    assert code == 0 and f"{len(others) + 1} clips of an earlier run were removed" in said
    assert text(out) == {first: "a bear doing the V* dance"}
    code, said, _ = run_main("prepare_clips", other, *command[2:])
    assert code == 0 and "1 clip of an earlier run was removed" in said and not set(text(out)) & set(edited)
    run_main(*command)
    assert text(out) == edited and {path.name for path in out.glob("*.mp4")} == set(edited)


def test_dropped_clip_is_told_and_another_one_is_proposed(run_main, tmp_path, footage, config):
    out = tmp_path / "clips"
    command = ("prepare_clips", footage / "film.mp4", "-o", out, *DANCE, "--config", config, *SMALL)
    run_main(*command, "--num", 2)
    (first, second) = text(out)
    (tmp_path / "choice.json").write_text(json.dumps({second: "a clown doing the V* dance"}))
    run_main("prepare_clips", "-o", out, "--keep", tmp_path / "choice.json")
    code, said, _ = run_main(*command, "--num", 2)
    assert code == 0 and f"-> {first}: dropped by you\n" in said and "1 file: 1 used. 2 clips." in said
    assert len(text(out)) == 2 and second in text(out) and first not in text(out)
    assert {path.name for path in out.glob("*.mp4")} == set(text(out))
    assert [path.name for path in (out / ".prepared/dropped").iterdir()] == [first]
    page_says = json.loads((out / "report.json").read_text())
    assert [clip["file"] for clip in page_says["clips"] if not clip["kept"]] == [first]


def test_file_of_which_every_clip_was_dropped_is_not_called_used(run_main, tmp_path, config):
    out, films = tmp_path / "clips", [film(tmp_path / f"{seed}.mp4", scene(24, seed)) for seed in (1, 2)]
    command = ("prepare_clips", *films, "-o", out, *DANCE, "--config", config, *SMALL)
    run_main(*command)
    (first, second) = text(out)
    (tmp_path / "choice.json").write_text(json.dumps({second: "a clown doing the V* dance"}))
    run_main("prepare_clips", "-o", out, "--keep", tmp_path / "choice.json")
    statuses = [entry["status"] for entry in json.loads((out / "report.json").read_text())["inputs"]]
    assert sorted(statuses) == ["dropped", "used"]
    _, said, _ = run_main(*command)
    assert "1 used" in said and "1 dropped" in said and "1 clip." in said


def test_other_footage_of_the_same_name_takes_over_no_decision(run_main, tmp_path, config):
    out = tmp_path / "clips"
    for seed in (1, 2):
        path = film(tmp_path / f"{seed}/film.mp4", scene(24, seed))
        run_main("prepare_clips", path, "-o", out, *DANCE, "--config", config, *SMALL)
        (name,) = captions = text(out)
        assert captions == {"film_000.00s.mp4": "a man doing the V* dance"}
        (out / "text.json").write_text(json.dumps({name: "a clown doing the V* dance"}))
    assert video_metadata(out / name)["source"] == file_digest(path)


def test_dropped_clip_stays_dropped_when_it_is_cut_in_another_way(run_main, tmp_path, footage, config):
    out = tmp_path / "clips"
    command = ("prepare_clips", footage / "film.mp4", "-o", out, *DANCE, "--config", config)
    run_main(*command)
    captions = dict.fromkeys(list(text(out))[1:], "a clown doing the V* dance")
    (tmp_path / "choice.json").write_text(json.dumps(captions))
    run_main("prepare_clips", "-o", out, "--keep", tmp_path / "choice.json")
    run_main(*command, "--fps", 12)
    (dropped,) = (out / ".prepared/dropped").iterdir()
    assert list(text(out).values()) == list(captions.values()) and probe(dropped).fps == 12
    assert {path.name for path in out.glob("*.mp4")} == set(text(out))
    (tmp_path / "choice.json").write_text(json.dumps(text(out) | {dropped.name: "a man"}))
    run_main("prepare_clips", "-o", out, "--keep", tmp_path / "choice.json")
    assert text(out)[dropped.name] == "a man" and probe(out / dropped.name).fps == 12


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(run_main, tmp_path, footage, config,
                                                                    monkeypatch):
    out, looked_at, cut = tmp_path / "clips", [], []

    def analyse_until_stopped(path, cache):
        if len(looked_at) == 2:
            looked_at.append(None)
            raise KeyboardInterrupt
        looked_at.append(path)
        return analyse(path, cache)

    def cut_and_stop(*arguments):
        write_cuts(*arguments)
        cut.append(arguments)
        if len(cut) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("preparation.survey.analyse", analyse_until_stopped)
    monkeypatch.setattr("preparation.making.write_cuts", cut_and_stop)
    film(footage / "other.mp4", scene(40, 8))
    command = ("prepare_clips", footage, "-o", out, *DANCE, "--config", config)
    for _ in range(2):   # while looking, and while cutting
        assert run_main(*command)[0] == 130
    assert list(out.glob(".*.partial*")) == [] and len(list(out.glob("*.mp4"))) >= 1
    assert run_main(*command)[0] == 0
    assert len(cut) == 2 and set(text(out)) == {path.name for path in out.glob("*.mp4")}


def test_everything_wrong_is_said_at_once_before_anything_starts(run_main, tmp_path, footage):
    full = tmp_path / "full"
    film(full / "mine.mp4", scene(9))
    code, _, said = run_main("prepare_clips", footage / "none.mp4", full, "-o", full, "--seconds", 0.1,
                             "--num", -1, "--subject", " ", "--config", tmp_path / "none.yaml")
    lines = said.splitlines()
    assert code == 2 and len(lines) == len(set(lines)) == 7
    for part in ("none.mp4: does not exist", "is the output folder", "--num is -1", "none.yaml", "--subject",
                 "--motion is missing", "holds files that prepare_clips.py did not make"):
        assert any(part in line for line in lines), part
    assert not (full / ".prepared").exists()


@pytest.mark.parametrize("arguments, said", [
    (("--motion", "dance"), "Nobody says who moves in"),
    ((*DANCE, "--seconds", 0.2), "Say --seconds 0.34 or more"),
    (("--motion", "dance", "--captioner", "./none"), "--captioner: ./none does not exist"),
    (("--motion", "dance", "--subjects", "CSV"), "line 3: other.mp4 is not among the footage"),
    (("--crop", "round"), "invalid choice: 'round'"),
])
def test_wrong_arguments_are_one_line(run_main, tmp_path, footage, config, arguments, said):
    table = tmp_path / "subjects.csv"
    table.write_text("file,subject\nfilm.mp4,a man\nother.mp4,a dog\n")
    arguments = [table if argument == "CSV" else argument for argument in arguments]
    code, _, error = run_main("prepare_clips", footage / "film.mp4", "-o", tmp_path / "out", "--config",
                              config, *arguments)
    assert code == 2 and said in error and len(error.splitlines()) == 1


def test_no_room_is_one_line(run_main, tmp_path, footage, config, full_disk, monkeypatch):
    command = ("prepare_clips", footage / "film.mp4", "-o", tmp_path / "out", *DANCE,
               "--config", config)
    with full_disk():
        code, _, said = run_main(*command)
    assert code == 2 and len(said.splitlines()) == 1 and "could not be written" in said
    monkeypatch.setattr("prepare_clips.free_bytes", lambda path: 1000)
    code, _, said = run_main(*command)
    assert code == 2 and "1 kB are free there. Make room" in said


def test_footage_without_a_clip_is_said_with_its_reasons(run_main, tmp_path, footage, config):
    code, said, error = run_main("prepare_clips", footage / "black.mp4", "-o", tmp_path / "out", *DANCE,
                                 "--config", config)
    assert code == 2 and "No clip could be made" in error and "black, or fading" in said
    assert "black, or fading" in (tmp_path / "out/review.html").read_text()


def test_file_that_cannot_be_cut_is_said_and_others_take_its_place(run_main, tmp_path, footage, config,
                                                                    monkeypatch):
    def cut_after_the_file_is_gone(path, *arguments):
        if path.name == "film.mp4":
            path.unlink()
        write_cuts(path, *arguments)

    monkeypatch.setattr("preparation.making.write_cuts", cut_after_the_file_is_gone)
    film(footage / "other.mp4", scene(60, 8, speed=1))
    out = tmp_path / "out"
    code, said, _ = run_main("prepare_clips", footage / "film.mp4", footage / "other.mp4", "-o", out, *DANCE,
                             "--config", config, *SMALL, "--num", 2)
    assert code == 0 and "free there" not in said
    assert "film.mp4: left out (could not be cut: Error opening input" in said
    assert [name[:5] for name in text(out)] == ["other", "other"] and len(list(out.glob("*.mp4"))) == 2


def test_subjects_come_from_the_table_beside_the_footage_or_from_the_terminal(
        run_main, tmp_path, footage, config, monkeypatch):
    film(footage / "other.mp4", scene(40, 8))
    (footage / "subjects.csv").write_text("file,subject\nother.mp4,a red robot\n")
    monkeypatch.setattr("preparation.subjects.can_ask", lambda: True)
    answers = iter(["a m\x1b[Dan", "who True"])   # an arrow key; text.json could not be read with it
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    inputs = footage / "film.mp4", footage / "other.mp4"
    command = ("prepare_clips", *inputs, "-o", tmp_path / "out", "--motion", "dance", "--config", config)
    assert run_main(*command)[0] == 0
    captions = text(tmp_path / "out")
    assert {name[:4]: caption for name, caption in captions.items()} == {
        "film": "who True doing the V* dance", "othe": "a red robot doing the V* dance"}


def test_regularization_clips_have_plain_captions(run_main, tmp_path, footage, config):
    code, said, _ = run_main("prepare_clips", footage / "film.mp4", "-o", tmp_path / "out",
                             "--regularization", "--motion", "walking", "--subject", "a man",
                             "--config", config)
    assert code == 0 and set(text(tmp_path / "out").values()) == {"a man walking"}
    assert f"train_data.class_path={tmp_path / 'out'}" in said


def test_captioner_captions_what_nobody_has_named(run_main, tmp_path, footage, config, blip_folder):
    code, _, _ = run_main("prepare_clips", footage / "film.mp4", "-o", tmp_path / "out", "--motion", "dance",
                          "--captioner", blip_folder, "--config", config)
    assert code == 0 and all("doing the V* dance" in caption for caption in text(tmp_path / "out").values())


def test_captioner_describes_a_clip_that_was_dropped(run_main, tmp_path, footage, config, blip_folder):
    out = tmp_path / "out"
    command = ("prepare_clips", footage / "film.mp4", "-o", out, "--motion", "dance", "--captioner",
               blip_folder, "--config", config)
    run_main(*command)
    (out / "text.json").write_text(json.dumps(dict(list(text(out).items())[1:])))
    assert run_main("prepare_clips", "-o", out, "--keep")[0] == 0
    assert run_main(*command)[0] == 0 and len(list((out / ".prepared/dropped").iterdir())) == 1


def test_from_base_keeps_prompts_that_were_edited(run_main, tmp_path, config):
    command = ("prepare_clips", "-o", tmp_path, "--from-base", "zs", "--subject", "a man", "--config", config)
    _, first, _ = run_main(*command)
    assert run_main(*command)[1] == first
    (tmp_path / "prompts.txt").write_text("0,a man laughing\n")
    code, said, _ = run_main(*command)
    assert code == 0 and (tmp_path / "prompts.txt").read_text() == "0,a man laughing\n"
    assert "prompts.txt: is kept, for it is not what this command would write" in said
    assert said.splitlines()[1:] == first.splitlines()[1:]


@pytest.mark.parametrize("kind, subjects", [
    ("person", ["a clown", "a cook", "two children", "my daughter", "two ladies", "a man on a bike"]),
    ("animal", ["my puppies", "two wolves", "a parrot", "a brown bear"]),
    ("thing", ["a toy robot", "two buses", "a red car", "three leaves", "a puppet"])])
def test_kind_of_subject(kind, subjects):
    """Clowns, cooks and children counted as things, so that half of the prompts were of cars."""
    assert {subject: kind_of(subject) for subject in subjects} == dict.fromkeys(subjects, kind)


def test_command_that_is_printed_works_from_everywhere(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    code, said, err = run_main("prepare_clips", "--output=~/out", "--from-base", "zs", "--subject", "a man")
    assert code == 0 and (tmp_path / "out" / "prompts.txt").is_file(), err
    assert str(ROOT / "configs" / "zeroscope.yaml") in said


@pytest.mark.parametrize("kind", ["single_video", "image", "json"])
def test_command_that_is_printed_trains_on_the_folder_whatever_the_config_reads(run_main, tmp_path, kind):
    config, out = tmp_path / "other.yaml", tmp_path / "[out]"
    config.write_text(f"dataset_types: [{kind}]\ntrain_data: {{fps: 24, n_sample_frames: 8, width: 64, "
                      f"height: 64, single_video_path: o.mp4, json_path: o.json, image_dir: o}}\n")
    path = film(tmp_path / "film.mp4", scene(24, 1))
    code, said, err = run_main("prepare_clips", path, "-o", out, *DANCE, "--config", config, *SMALL)
    assert code == 0, err
    _, *changes = shlex.split(said.splitlines()[-1].partition("train_model.py")[2])
    loaded, _ = load_config(config, changes[1:])
    assert (loaded.dataset_types, loaded.train_data.path) == (["folder"], str(out))


def test_from_base_names_all_folders_of_exemplars(run_main, tmp_path, config):
    folders = [tmp_path / "twirl, fast", tmp_path / "hop"]
    for folder, token in zip(folders, ("V*", "V2*"), strict=True):
        film(folder / "a.mp4", scene(9))
        (folder / "text.json").write_text(json.dumps({"a.mp4": f"a man doing the {token} dance"}))
    code, said, err = run_main("prepare_clips", *folders, "-o", tmp_path / "out", "--from-base", "zs",
                               "--config", config)
    assert code == 0, err
    _, *changes = shlex.split(said.splitlines()[-1].partition("train_model.py")[2])
    assert load_config(config, changes[1:])[0].train_data.path == list(map(str, folders))


def test_from_base_writes_prompts_of_the_exemplars_kinds(run_main, tmp_path, config):
    exemplars, out = tmp_path / "exemplars", tmp_path / "others"
    film(exemplars / "a.mp4", scene(9))
    film(exemplars / "b.mp4", scene(9))
    captions = {"a.mp4": "a man doing the V* dance", "b.mp4": "a dog doing the V* dance"}
    (exemplars / "text.json").write_text(json.dumps(captions))
    code, said, _ = run_main("prepare_clips", exemplars, "-o", out, "--from-base", "zs", "--num", 30,
                             "--config", config)
    prompts = (out / "prompts.txt").read_text().splitlines()
    assert code == 0 and len(set(prompts)) == 30 and "V*" not in "".join(prompts)
    assert sum(" a dog " in f" {line.partition(',')[2]} " for line in prompts) == 2
    first, second = said.splitlines()[1:]
    assert "generate_pretrained.py -m zs" in first and "-r 64x64 -d 8 --fps 24" in first
    assert f"train_data.path={exemplars} train_data.class_path={out}" in second and "V*" not in second
    code, said, _ = run_main("prepare_clips", exemplars, "-o", out, "--from-base", "zs", "--motion", "dance",
                             "--fps", 12, "--config", config)
    first, second = said.splitlines()[1:]
    assert code == 0 and "--fps 12" in first and "train_data.fps=12" in second
    assert "'validation_data.prompt=a robot doing the V* dance'" in second
