"""studies/ablation.py: cells are run once and go on where they stopped; cells not run are open."""

import json
import re
import runpy
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from evaluation.scores import MEASURES
from evaluation.statistics import estimate
from studies import ablation
from studies.ablation_cells import TABLES, all_cells
from studies.ablation_report import Row, fill_in, markdown_table, markers, measured_titles, plot_rows, pool
from studies.ablation_study import Study
from studies.logged_commands import OutOfTime
from studies.study_prompts import write_prompts
from tests.conftest import ROOT
from tests.processes import Process
from tests.recognizers import make_clip, make_recognizer
from utils.errors import UserError, run_script

DOCUMENT = "# Results\n\n" + "\n\n".join("\n".join(markers(table)) for table in TABLES) + "\n\nThe end.\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("recognizers")
    return ["--recognizer", make_recognizer(folder / "motion"), "--clip", make_clip(folder / "clip")]


@pytest.fixture
def run_script_main(monkeypatch, capsys, tmp_path, tiny_base):
    """Return a function that runs the script in this process: (exit code, stdout, stderr)."""
    def run(*arguments: object) -> tuple[int, str, str]:
        command = ["ablation.py", "--out", tmp_path, "--base", tiny_base, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        code, on_termination = 0, signal.getsignal(signal.SIGTERM)
        try:
            run_script(ablation.main)
        except SystemExit as error:
            code = error.code
        finally:
            signal.signal(signal.SIGTERM, on_termination)
        return code, *capsys.readouterr()
    return run


def run_forked(command: list[str], log_path: Path, deadline: float) -> None:
    """Do what `run_logged` does, which has tests of its own, in a process that need not import anything."""
    if time.monotonic() >= deadline:
        raise OutOfTime
    python, script, *arguments = command
    assert python == sys.executable and Path(script).parent == ROOT
    log_path.parent.mkdir(parents=True, exist_ok=True)
    process = Process(Path(script).stem, arguments, log_path)
    assert process.wait() == 0, process.said()


@pytest.fixture
def study(run_script_main, models, tmp_path, monkeypatch):
    """Return a function that runs the script on a base and with steps that take seconds."""
    (tmp_path / "results.md").write_text(DOCUMENT)
    monkeypatch.setattr(ablation, "run_logged", run_forked)

    def run(*arguments: object) -> tuple[int, str, str]:
        return run_script_main(
            "--out", tmp_path / "out", "--docs", tmp_path / "results.md", *models, "--motions", "dance",
            "--seeds", "64", "--videos", "4", "--inference-steps", "1", *arguments,
            "--set", "max_train_steps=2", "train_data.n_sample_frames=4", "train_batch_size=1")
    return run


def write_scores(path: Path, values: list[float], motion: str = "dance") -> None:
    """Write scores.json of one training, a value a prompt."""
    videos = [{"prompt": f"cat {index} doing the {motion}", "seed": index, "step": None,
               "scores": {"motion_probability": value}} for index, value in enumerate(values)]
    path.write_text(json.dumps({"videos": videos}))


def test_most_telling_cells_come_first_and_every_table_is_covered():
    cells = all_cells()
    assert [cell.name for cell in cells[:9]] == [
        "base", "paper", "paper-alone", "cross", "cross-alone", "temporal", "temporal-alone", "everything",
        "everything-alone"]
    assert len({cell.name for cell in cells}) == len(cells)
    counts = {table: sum(table in cell.tables for cell in cells) for table in TABLES}
    assert counts == {"weights": 13, "regularization": 6, "timesteps": 4, "exemplars": 5, "steps": 1}


def test_every_cell_is_a_config_that_is_right():
    from training.config_loading import load_config

    for cell in all_cells():
        load_config(ablation.CONFIG, list(cell.overrides))


def test_prompts_are_of_unseen_characters_and_all_differ():
    prompts = write_prompts("dance", 48)
    assert len(set(prompts)) == 48 and sum("V* dance" in prompt for prompt in prompts) == 36
    assert not any(f" {shown} " in f" {prompt} " for prompt in prompts
                   for shown in ("man", "men", "woman", "women", "clown", "clowns"))
    pairs = sum(prompt.startswith("two") for prompt in prompts if "V*" in prompt)
    assert 10 <= pairs <= 14
    assert {place for place in ("park", "beach", "snow", "desert", "night", "kitchen", "stage")
            if any(place in prompt for prompt in prompts)} >= {"park", "snow", "desert", "kitchen"}
    assert write_prompts("dance", 16) == prompts[:16]


def test_more_exemplars_begin_with_the_bundled_ones(tmp_path):
    from puppets import theatre

    theatre.write_exemplars("dance", tmp_path, 12)
    captions = json.loads((tmp_path / "text.json").read_text())
    bundled = json.loads((ROOT / "data" / "puppets" / "exemplars" / "text.json").read_text())
    assert len(captions) == 12 and list(captions)[:6] == list(bundled)


def test_cells_are_open_until_they_are_measured():
    measures = {measure.key: estimate([0.5, 0.7]) for measure in MEASURES}
    table = markdown_table([Row("paper", measures, 2), Row("cross", None, 0)]).splitlines()
    assert "| paper | 0.60 (" in table[2] and "n=2" in table[2]
    assert table[3].count("open") == table[0].count("|") - 2


def test_videos_of_all_motions_and_seeds_are_pooled(tmp_path):
    write_scores(tmp_path / "0.json", [0.2, 0.4])
    write_scores(tmp_path / "1.json", [0.6])
    measures, num = pool(sorted(tmp_path.glob("*.json")))
    assert num == 3 and measures["motion_probability"].mean == pytest.approx(0.4)
    assert measures["copies"].num == 0


def test_more_trainings_are_not_more_prompts(tmp_path):
    """Two seeds of training render the same prompts. Copies of the same scores tell nothing new."""
    values = np.random.default_rng(1).random(36).tolist()
    write_scores(tmp_path / "0.json", values)
    once, twice = (pool([tmp_path / "0.json"] * num)[0]["motion_probability"] for num in (1, 2))
    assert twice.interval == once.interval and (twice.num, twice.num_prompts) == (72, 36)


def test_row_says_how_far_trainings_are_apart(tmp_path):
    for name, values in (("dance-64", [0.2, 0.4]), ("dance-65", [0.6, 0.8]), ("jump-64", [0.1, 0.3]),
                         ("jump-65", [0.7, 0.9])):
        write_scores(tmp_path / f"{name}.json", values, name[:4])
    by_seed = [sorted(tmp_path.glob(f"*-{seed}.json")) for seed in (64, 65)]
    row = Row("paper", *pool(sum(by_seed, [])), trainings=[pool(files)[0] for files in by_seed])
    assert ", n=8 of 4 prompts, trainings 0.25 to 0.75 |" in markdown_table([row])
    assert "trainings" not in markdown_table([Row("paper", *pool(by_seed[0]))])


def test_tables_go_between_their_markers_and_nowhere_else(tmp_path):
    path = tmp_path / "results.md"
    path.write_text(DOCUMENT)
    fill_in(path, {table: f"of {table} \\1" for table in TABLES})
    once = path.read_text()
    fill_in(path, {table: f"of {table} \\1" for table in TABLES})
    assert path.read_text() == once and once.endswith("The end.\n") and "\nof weights \\1\n" in once
    path.write_text(once.replace("<!-- end of ablation: steps -->", ""))
    with pytest.raises(UserError, match="needs once the lines <!-- ablation: steps -->"):
        fill_in(path, {"steps": ""})


def test_plot_of_cells(tmp_path):
    measures = {measure.key: estimate([0.5, 0.7]) for measure in MEASURES}
    assert not plot_rows(tmp_path / "a.png", [Row("open", None, 0)], "a title")
    assert plot_rows(tmp_path / "a.png", [Row("paper", measures, 2), Row("open", None, 0)], "a title")
    assert plot_rows(tmp_path / "b.png", [Row("step 1", measures, 2, 1), Row("step 9", measures, 2, 9)], "b")


def test_measured_rows_of_a_table():
    measures = {measure.key: estimate([0.5, 0.7]) for measure in MEASURES}
    text = "of | this\n\n" + markdown_table([Row("paper", measures, 2), Row("cross", None, 0)])
    assert measured_titles(text) == {"paper"} and measured_titles("\n") == set()


@pytest.mark.parametrize("arguments, words", [
    (["--cells", "polka"], "--cells polka: unknown. Tables: weights"),
    (["--motions", "polka"], "--motions polka: choose from dance"),
    (["--videos", "2"], "--videos 2 is below 4"),
    (["--base", "nowhere"], "nowhere: does not exist"),
    (["--seeds", ""], "--seeds names none"),
    (["--set", "max_train_step=2"], "max_train_step is not a key"),
    (["--set", "seed=7", "max_train_steps=2"], "--set seed: the study sets it itself. Use --seeds."),
    (["--set", "validation_data.guidance_scale=7"], "the study sets it itself. Use --guidance-scale."),
    (["--set", "train_data={path: x}"], "--set train_data.path: the study sets it itself."),
    (["--docs", "nowhere.md"], "nowhere.md: does not exist"),
])
def test_mistakes_are_one_line_and_code_2(run_script_main, arguments, words):
    code, _, err = run_script_main(*arguments)
    assert code == 2 and words in err and len(err.strip().splitlines()) == 1


def test_cells_are_listed_by_the_command(tiny_base, tmp_path, monkeypatch, capsys):
    """As `python -m studies.ablation` runs it, in this process."""
    monkeypatch.setattr(sys, "argv", ["studies.ablation", "--list", "--cells", "base,steps",
                                      "--base", str(tiny_base), "--out", str(tmp_path)])
    monkeypatch.delitem(sys.modules, "studies.ablation")
    on_termination = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("studies.ablation", run_name="__main__")
    signal.signal(signal.SIGTERM, on_termination)
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in listed] == [["open", "base"], ["open", "steps"]]


@pytest.mark.slow
def test_cells_run_go_on_and_are_written_down(study, tmp_path):
    out = tmp_path / "out"
    code, said, err = study("--cells", "base,exemplars-1", "--minutes", "0")
    assert code == 0 and "out of time" in said, err
    assert (tmp_path / "results.md").read_text().count("| open |") > 10

    code, _, err = study("--cells", "base,exemplars-1")
    assert code == 0, err
    cell = out / "cells" / "exemplars-1" / "dance-seed64"
    scores, = cell.glob("scores-*.json")
    assert len(list((out / "base" / "dance-4" / "videos").glob("*.mp4"))) == 4
    exemplars = list((out / "exemplars" / "dance-1").glob("*.mp4"))
    assert [path.name for path in exemplars] == ["dance_man_park.mp4"]
    text = (tmp_path / "results.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| 1 exemplar |"))
    assert "n=3" in row and "n=1" in row and "open" not in row     # three of the motion, one everyday
    assert "| 3 exemplars | open" in text and "python -m studies.ablation --cells exemplars" in text
    assert json.loads((out / "results.json").read_text())["exemplars"]["rows"][0]["title"] == "untuned base"

    run = next((cell / "runs").glob("cell-*"))
    (run / "motion.safetensors").unlink()                     # as if it had been killed while training
    scores.unlink()
    code, said, err = study("--cells", "base,exemplars-1")
    assert code == 0, err
    assert said.startswith("exemplars-1, dance") and "train_model.py" in said
    assert list((cell / "runs").glob("cell-*")) == [run] and (run / "motion.safetensors").is_file()
    assert "finished" in study("--list", "--cells", "exemplars-1")[1]

    elsewhere = ["--out", tmp_path / "elsewhere", "--cells", "base,exemplars-1", "--minutes", "0"]
    code, said, err = study(*elsewhere)                       # measured rows are not replaced by open ones
    assert code == 0 and "table exemplars stays as it is" in said and "lacks its 1 exemplar" in said, err
    assert row in (tmp_path / "results.md").read_text()
    document = tmp_path / "results.md"
    document.write_text(re.sub("UNet [0-9a-f]+", "UNet 0123", document.read_text()))   # also of another base
    code, said, err = study(*elsewhere)
    assert code == 0 and "table exemplars stays as it is" in said and row in document.read_text(), err

    other = make_recognizer(tmp_path / "other", seed=1)       # judged anew by it, from the same videos
    code, said, err = study("--cells", "base,exemplars-1", "--recognizer", other)
    assert code == 0 and said.count("evaluate_motion.py") == 2, err
    assert len(list(cell.glob("scores-*.json"))) == 2 and "train_model.py" not in said
    assert list((cell / "runs").glob("cell-*")) == [run]

    code, _, err = study("--cells", "base", "--inference-steps", "2")
    assert code == 2 and "was made with another inference_steps" in err


def test_cell_whose_training_never_began_may_be_made_in_another_way(study, tmp_path):
    code, said, err = study("--cells", "base", "--minutes", "0")
    assert code == 0 and "out of time" in said and (tmp_path / "out" / "cells" / "base").is_dir(), err
    code, said, err = study("--cells", "base", "--minutes", "0", "--inference-steps", "2")
    assert code == 0 and "out of time" in said, err


def test_videos_of_more_prompts_are_not_counted_in_a_smaller_study(monkeypatch, tmp_path):
    """They lay in one folder, and the row of the untuned base measured all of them."""
    folders = set()
    for num in ("8", "16"):
        monkeypatch.setattr(sys, "argv", ["ablation", "--out", str(tmp_path), "--videos", num])
        folders.add(ablation.base_videos(Study(tmp_path, ablation.parse_args(), "", "", 0.0), "dance"))
    assert len(folders) == 2


@pytest.mark.slow
def test_curve_has_a_row_a_step(study, tmp_path):
    code, _, err = study("--cells", "steps")
    assert code == 0, err
    rows = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("| step ")]
    assert [row.split("|")[1].strip() for row in rows] == ["step 1", "step 2", "step 3", "step 4"]
    assert (tmp_path / "results.md").read_text().count("| untuned base | 0.") == 1   # its step 0
