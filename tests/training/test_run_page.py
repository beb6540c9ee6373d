"""run.html: in a real Chromium while a run goes on and afterwards, and what is in it of long runs."""

import re
import shutil
import time
from pathlib import Path

import pytest

from rendering.gallery import write_page
from tests.conftest import ROOT, write_clip
from training.compare_runs import COMPARISON_NAME
from training.config import Config, TrainData, ValidationData
from training.curves import HELD_OUT, LOGGED, MOST_POINTS, Curves, turning_point
from training.run_folder import append_log, read_log
from training.run_page import PAGE_NAME, RunPage, list_samples, read_page, show_scores

TEMPLATE = (ROOT / "utils" / PAGE_NAME).read_text(encoding="utf-8")
MARKUP = "</script><b>V*</b><img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def held_out_run(tmp_path_factory, save_small_config):
    """A finished run with samples of steps 0 and 2 and a held-out loss, a prompt of which is markup."""
    from tests.conftest import run_script_here

    folder = tmp_path_factory.mktemp("page")
    config = save_small_config(folder, "max_train_steps=2", "checkpointing_steps=1", "validation_steps=2",
                               "train_data.held_out=1", "held_out_steps=1")
    assert run_script_here("train_model", "--config", config, f"validation_data.prompt={MARKUP}") == 0
    return next(folder.glob("results/spin-*"))


def entry(step: int, loss: float = 0.5) -> dict:
    return {"step": step, "loss": loss, "exemplar": loss, "regularization": None, "grad_norm": 0.1,
            "lr": 1e-3, "seconds": 0.25}


def described_clip(**changes) -> dict:
    return {"name": "clip.mp4", "url": "clip.mp4", "captions": ["a cat"], "size": [64, 64],
            "native_size": [64, 64], "frames": 9, "fps": 8, "window": 4, "windows": 6, "remarks": [],
            **changes}


def texts(page, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "all => all.map(one => one.textContent)")


def wait_for_videos(page, selector: str) -> None:
    page.wait_for_function("which => [...document.querySelectorAll(which)].every(one => one.readyState)",
                           arg=selector)


class PlanStub:
    """What the page needs of a plan."""

    def __init__(self, **changes):
        self.config = Config(train_data=TrainData(path="clips"), **changes)
        self.exemplars = self.regularization = []
        self.held_out = {}


# -------------------------------------------------------------------------------------------- in a browser

@pytest.mark.browser
def test_page_of_a_run_that_goes_on_loads_itself_again_where_it_was(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr("training.run_page.SECONDS_TO_RELOAD", (1, 1))
    page_file = RunPage(PlanStub(max_train_steps=90), tmp_path, 0)
    for step in range(1, 26):
        page_file.add(entry(step))
    page_file.began -= 100   # seconds that the steps took
    page_file.write()   # however little time has passed since the last one
    page = open_page(tmp_path / PAGE_NAME, viewport={"width": 360, "height": 500})
    assert page.inner_text("#state") == "running" and page.inner_text("#numbers").startswith("25 of 90 steps")
    assert "left" in page.inner_text("#numbers")
    page.evaluate("scrollTo(0, 300)")
    for step in range(26, 51):
        page_file.add(entry(step))
    page_file.write()
    page.wait_for_function("() => document.getElementById('numbers').textContent.startsWith('50 of')")
    page.wait_for_function("() => Math.abs(scrollY - 300) < 2")
    page_file.write("finished")
    page.wait_for_function("() => document.getElementById('state').textContent === 'finished'")
    page.evaluate("window.isTheSame = true")
    time.sleep(1.5)
    assert page.evaluate("window.isTheSame") is True   # it is not loaded again


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1000])
def test_reader_stays_where_they_were_among_wide_samples_and_clips(open_page, tmp_path, monkeypatch, width):
    monkeypatch.setattr("training.run_page.SECONDS_TO_RELOAD", (1, 1))
    for step in (0, 5):
        for seed in range(9):
            write_clip(tmp_path / "samples" / f"step_{step:05d}" / f"a_cat_seed{seed}.mp4", width=128)
    clip = described_clip(url="clip.mp4", size=[64, 64], native_size=[128, 64])
    write_clip(tmp_path / "clip.mp4", width=128)
    run = RunPage(PlanStub(max_train_steps=90), tmp_path, 0)
    run.clips = [{"role": role, "held_out": False, "num": 9, "clips": [clip] * 9}
                 for role in ("exemplar", "regularization")]
    run.add(entry(1))
    run.write()
    page = open_page(tmp_path / PAGE_NAME, viewport={"width": width, "height": 500})
    wait_for_videos(page, "#samples video")
    for summary in ("exemplar", "regularization"):   # the first is closed, the other opened
        page.click(f"#clips summary >> text={summary}")
    for place in ("#samples li:nth-child(8)", "#clips details:nth-of-type(2) li:nth-child(6)"):
        page.eval_on_selector(place, "one => one.scrollIntoView()")
        tops = []
        for _ in range(2):
            wait_for_videos(page, "#samples video, #clips details[open] video")
            tops.append(page.eval_on_selector(place, "one => Math.round(one.getBoundingClientRect().top)"))
            page.evaluate("window.isOld = true")
            page.wait_for_function("() => !window.isOld && document.querySelector('#clips details')")
        assert tops[0] == tops[1], place
    assert page.eval_on_selector_all("#clips details", "all => all.map(one => one.open)") == [False, True]


@pytest.mark.browser
def test_page_is_read_during_a_run_and_after_it(open_page, run_main, write_config, monkeypatch, tmp_path):
    from training import loop, run_page

    take_step, pages, seen = loop.take_step, [], []

    def looked_at(training, step):
        if step == 2:
            pages.append(open_page(training.run / PAGE_NAME))
            seen.append([pages[0].inner_text("#state"), pages[0].locator("#charts path.curve").count(),
                         pages[0].inner_text("#numbers").partition(" steps")[0]])
        return take_step(training, step)

    monkeypatch.setattr(loop, "take_step", looked_at)
    monkeypatch.setattr(run_page, "WRITE_EVERY", 2)
    monkeypatch.setattr(run_page, "MOST_SHARE", 1e9)   # steps of a tiny base are as short as writing a page
    monkeypatch.setattr(run_page, "SECONDS_TO_RELOAD", (1, 1))
    code, out, err = run_main("train_model", "--config", write_config("checkpointing_steps=null"))
    assert code == 0, out + err
    assert seen == [["running", 5, "2 of 4"]]
    pages[0].wait_for_function("() => document.getElementById('state').textContent === 'finished'")
    assert pages[0].inner_text("#numbers").startswith("4 of 4 steps")


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_page_of_a_finished_run_shows_curves_samples_and_clips(open_page, held_out_run, width):
    page = open_page(held_out_run / PAGE_NAME, viewport={"width": width, "height": 900})
    assert page.inner_text("#state") == "finished" and page.inner_text("#title") == held_out_run.name
    assert texts(page, "#charts figcaption b") == [
        "Loss", "Held-out loss", "Learning rate", "Gradient norm", "Seconds a step"]
    drawn = page.eval_on_selector_all("#charts path.curve", "all => all.map(one => one.getAttribute('d'))")
    assert len(drawn) == 7 and all(re.fullmatch(r"M[\d. ]+(L[\d. ]+)+", path) for path in drawn)
    assert texts(page, "#charts svg text").count("step") == 5
    page.locator("#samples").scroll_into_view_if_needed()
    wait_for_videos(page, "#samples video")
    assert page.eval_on_selector_all("#samples video", "all => all.map(one => one.videoWidth)") == [64, 64]
    assert page.inner_text("#samples .pair") == "step 0 (base)\nstep 2"
    wait_for_videos(page, "#clips details[open] video")
    assert texts(page, "#clips summary") == [
        "2 exemplars", "1 regularization clip", "1 exemplar held out: never trained on",
        "1 regularization clip held out: never trained on"]
    assert "doing the V* spin" in page.inner_text("#clips")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_chip_of_a_step_keeps_the_focus(open_page, tmp_path):
    for step in (0, 5, 10):
        write_clip(tmp_path / "samples" / f"step_{step:05d}" / "a_cat_seed7.mp4")
    RunPage(PlanStub(), tmp_path, 0).write("finished")
    page = open_page(tmp_path / PAGE_NAME)
    page.locator("#samples .chip").first.press("Enter")
    assert page.inner_text("#samples .pair") == "step 0 (base)\nstep 5"
    assert page.evaluate("document.activeElement.textContent") == "step 5"


@pytest.mark.browser
def test_markup_in_prompts_and_captions_is_harmless(open_page, held_out_run, tmp_path):
    page = open_page(held_out_run / PAGE_NAME)
    assert MARKUP in page.inner_text("#samples .caption")
    assert page.evaluate("window.pwned ?? null") is None
    assert page.evaluate("document.querySelectorAll('main b').length") == page.evaluate(
        "document.querySelectorAll('figcaption b, .legend b').length")
    run = RunPage(PlanStub(), tmp_path, 0)
    run.clips = [{"role": "exemplar", "held_out": False, "num": 1, "clips": [described_clip(
        name=MARKUP, url="javascript%3Aalert(1)", captions=[MARKUP], remarks=[MARKUP])]}]
    run.write("stopped", MARKUP)
    page = open_page(tmp_path / PAGE_NAME)
    assert page.inner_text("#clips .caption") == MARKUP and MARKUP in page.inner_text("#message")
    assert page.evaluate("window.pwned ?? null") is None
    page.expected_errors.clear()   # the clip is not there


@pytest.mark.browser
def test_page_of_a_run_that_was_killed_says_that_there_is_no_news(open_page, tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr("training.run_page.time.time", lambda: now - 3 * 3600 - 20)   # it is rounded
    RunPage(PlanStub(), tmp_path, 0).write()
    page = open_page(tmp_path / PAGE_NAME)
    assert page.inner_text("#state") == "no news"
    assert "Nothing was written for 3 h 0 min. Look whether it still runs" in page.inner_text("#message")
    command = page.inner_text("#message code")
    assert command.startswith(f"cd {Path.cwd()} && ") and "--resume" in command


@pytest.mark.browser
def test_run_whose_first_steps_or_samples_take_long_is_no_cause_for_alarm(open_page, tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr("training.run_page.time.time", lambda: now - 25 * 60)
    RunPage(PlanStub(), tmp_path, 0).write()
    page = open_page(tmp_path / PAGE_NAME)
    assert page.inner_text("#state") == "running" and page.is_hidden("#message")


def test_page_is_written_while_samples_are_rendered(save_small_config, tmp_path, monkeypatch, run_main):
    # samples of a large base can take longer than the page waits before it says that there is no news
    monkeypatch.setattr("training.run_page.WRITE_AFTER", 0)
    written, write = [], RunPage.write

    def write_and_count(page, *state):
        write(page, *state)
        written.append((page.step, sum(len(one["videos"]) for one in list_samples(page.run, "sks"))))

    monkeypatch.setattr(RunPage, "write", write_and_count)
    config = save_small_config(tmp_path, "max_train_steps=1", "validation_steps=5")
    code, _, err = run_main("train_model", "--config", config, "validation_data.prompt=[a cat,a dog,a bear]",
                            "validation_data.batch_size=1")
    assert code == 0, err
    # the batch before may still be in the thread that writes videos
    before_training = [num for step, num in written if step == 0]
    assert len(before_training) >= 4 and max(before_training[:-1]) >= 1 and before_training[-1] == 3, written


@pytest.mark.browser
def test_values_under_the_pointer_are_told(open_page, tmp_path):
    run = RunPage(PlanStub(max_train_steps=5), tmp_path, 0)
    for step in range(1, 6):
        run.add(entry(step, loss=step / 10))
    run.write("finished")
    page = open_page(tmp_path / PAGE_NAME)
    assert page.inner_text("#charts .legend") == "exemplars 0.5"
    box = page.locator("#charts svg").first.bounding_box()
    page.mouse.move(box["x"] + 55, box["y"] + 80)
    assert "0.1" in page.inner_text("#charts .legend") and "step 1" in page.inner_text("#charts .legend")


@pytest.mark.browser
def test_turning_point_and_scores_are_marked(open_page, held_out_run, tmp_path):
    run = shutil.copytree(held_out_run, tmp_path / "run")
    for step, loss in enumerate([9, 7, 5, 3, 1, 1, 2, 3, 4, 5, 6], 3):
        append_log(run, {**entry(step), "held_out_exemplar": loss / 1000})
    page_file = RunPage(PlanStub(max_train_steps=20), run, 2)
    page_file.write("stopped")
    panel = {"title": "motion", "curves": [{"label": "probability", "points": [
        [0, 0.1, 0.0, 0.2], [2, 0.7, None, None]]}]}
    assert show_scores(run, {"step": 2, "reason": "motion 0.70 is the best", "panels": [panel]})
    page = open_page(run / PAGE_NAME)
    assert texts(page, "svg text.mark") == ["turns up after 8", "to use"]
    assert "Step to use: 2; motion 0.70 is the best" in page.inner_text("#step-to-use")
    assert page.inner_text("#state") == "stopped after step 2"
    assert "--resume" in page.inner_text("#message code")
    # a run that goes on keeps its scores
    RunPage(PlanStub(max_train_steps=20), run, 2).write()
    assert read_page(run)["scores"]["step"] == 2


@pytest.mark.browser
def test_runs_are_compared_on_one_page(open_page, held_out_run, baseline_run, run_main, tmp_path):
    runs = [shutil.copytree(run, tmp_path / name)
            for run, name in ((held_out_run, "one"), (baseline_run, "two"))]
    code, out, err = run_main("train_model", "--compare", *runs)
    assert code == 0 and out.strip() == f"open {(tmp_path / COMPARISON_NAME).as_uri()}", err
    page = open_page(tmp_path / COMPARISON_NAME, viewport={"width": 360, "height": 900})
    legend = texts(page, "#charts figure:first-child .legend > span")
    assert [text.split()[0] for text in legend[:2]] == ["one", "two"]
    rows = page.eval_on_selector_all("#differences tr",
                                     "all => all.map(row => [...row.cells].map(one => one.textContent))")
    assert rows[0] == ["", "one", "two"]
    assert ["max_train_steps", "2", "4"] in rows and ["train_data.held_out", "1", "0"] in rows
    assert not [row for row in rows[1:] if row[1] == row[2]]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_prompts_and_captions_are_read_from_their_own_side(open_page, tmp_path):
    arabic = "رجل يرقص رقصة V*!"
    write_clip(tmp_path / "samples" / "step_00005" / "one_seed7.mp4", caption=arabic)
    write_clip(tmp_path / "clip.mp4")
    run = RunPage(PlanStub(), tmp_path, 0)
    run.clips = [{"role": "exemplar", "held_out": False, "num": 1,
                  "clips": [described_clip(captions=[arabic])]}]
    run.write("finished")
    page = open_page(tmp_path / PAGE_NAME)
    sides = page.eval_on_selector_all(".caption", "all => all.map(one => getComputedStyle(one).direction)")
    assert sides == ["rtl", "rtl"]


@pytest.mark.browser
def test_reduced_motion_plays_only_when_asked(open_page, tmp_path):
    write_clip(tmp_path / "samples" / "step_00005" / "a_cat_seed7.mp4", width=320, height=192)
    write_clip(tmp_path / "clip.mp4", width=320, height=192)
    run = RunPage(PlanStub(), tmp_path, 0)
    run.clips = [{"role": "exemplar", "held_out": False, "num": 1,
                  "clips": [described_clip(native_size=[320, 192])]}]
    run.write("finished")
    page = open_page(tmp_path / PAGE_NAME, reduced_motion="reduce", viewport={"width": 1000, "height": 1600})
    wait_for_videos(page, "video")
    page.wait_for_timeout(300)
    assert page.evaluate("[...document.querySelectorAll('video')].every(one => one.paused && one.controls)")
    assert page.locator("a video").count() == 0   # in a link the controls would open the file
    page.press("#clips video", "Space")
    page.wait_for_function("() => !document.querySelector('#clips video').paused")
    page.click("#clips .caption")   # still leads to the file
    page.wait_for_url("**/clip.mp4")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_words_in_tables_stay_whole_and_the_page_as_wide_as_the_window(open_page, tmp_path, width):
    long_prompt = "a person in a red coat doing the V* dance on a rooftop at dusk, cinematic, 35mm, " * 9
    run = RunPage(PlanStub(validation_data=ValidationData(prompt=[long_prompt, "x" * 300])), tmp_path, 0)
    run.write("finished")
    config = read_page(tmp_path)["config"]
    names = [f"spin-2026010{number}-120000" for number in range(8)]
    rows = [[key, *(value for _ in names)] for key, value in list(config.items())[:9]]
    rows.append(["validation_data.prompt", *(f"[{long_prompt}, {name}]" for name in names)])
    write_page(tmp_path / COMPARISON_NAME, PAGE_NAME, {
        "title": "8 runs", "runs": [{**read_page(tmp_path)["runs"][0], "name": name} for name in names],
        "differences": rows})
    for name, where in ((PAGE_NAME, "#config"), (COMPARISON_NAME, "#differences")):
        page = open_page(tmp_path / name, viewport={"width": width, "height": 900})
        page.eval_on_selector_all(f"{where} details", "all => all.forEach(one => { one.open = true; })")
        heights = page.eval_on_selector_all(
            f"{where} td:first-child", "all => all.map(one => one.firstChild).map(text => {"
            " const range = document.createRange(); range.selectNode(text);"
            " return range.getBoundingClientRect().height; })")
        assert max(heights) < 30, name   # a key is one line
        widths = page.eval_on_selector_all(f"{where} :is(th, td)", "all => all.map(one => one.offsetWidth)")
        assert min(widths) > 100, name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


# ----------------------------------------------------------------------------------------------- without one

def test_comparison_names_every_folder_that_is_none(run_main, baseline_run, tmp_path):
    (tmp_path / "a").mkdir()
    code, _, err = run_main("train_model", "--compare", baseline_run, tmp_path / "a", tmp_path / "b")
    assert code == 2 and "a: is not the folder of a run." in err and "b: does not exist." in err
    code, _, err = run_main("train_model", "--compare", baseline_run)
    assert code == 2 and "--compare takes 2 to 8 runs, not 1" in err


@pytest.mark.parametrize("num_steps", [300, 3000, 100_000])
def test_page_of_a_long_run_stays_small(tmp_path, num_steps):
    page = RunPage(PlanStub(max_train_steps=num_steps), tmp_path, 0)
    for step in range(1, num_steps + 1):
        page.curves.add(entry(step, loss=1 / step))
        if step % 50 == 0:
            page.held_out.add({"step": step, "held_out_exemplar": 1 / step})
    page.step = num_steps
    page.write("finished")
    steps = read_page(tmp_path)["runs"][0]["curves"]["step"]
    assert min(num_steps, MOST_POINTS / 2) <= len(steps) <= MOST_POINTS and steps[-1] == num_steps
    assert (tmp_path / PAGE_NAME).stat().st_size < 130_000


def test_points_are_means_and_the_same_whenever_they_were_added():
    entries = [entry(step, loss=step) for step in range(1, 2501)]
    whole = Curves(LOGGED, entries)
    resumed = Curves(LOGGED, entries[:1700])
    for one in entries[1700:]:
        resumed.add(one)
    assert whole.columns() == resumed.columns() and whole.length == 4
    assert whole.columns()["exemplar"][:2] == [2.5, 6.5] and whole.columns()["step"][:2] == [4, 8]
    assert "regularization" not in whole.columns()


def test_values_that_are_not_finite_are_left_out():
    curves = Curves(LOGGED, [{**entry(1), "grad_norm": None}, {**entry(2), "exemplar": float("nan")}])
    assert curves.columns()["grad_norm"] == [None, 0.1] and curves.columns()["exemplar"] == [0.5, None]


def test_held_out_loss_of_step_0_is_a_point():
    curves = Curves(HELD_OUT, [{"step": 0, HELD_OUT[0]: 1.0}, entry(1), {**entry(2), HELD_OUT[0]: 0.5}])
    assert curves.columns() == {"step": [0, 2], "held_out_exemplar": [1.0, 0.5]}


@pytest.mark.parametrize("losses, turn", [
    ([9, 7, 5, 3, 1, 1, 2, 3, 4, 5, 6], {"step": 5, "has_risen": True}),
    ([9, 7, 5, 3, 2, 1.5, 1.2, 1.1, 1], {"step": 8, "has_risen": False}),
    ([1, 1, 1, 1, 1, 1, 1, 1], {"step": 0, "has_risen": False}),
    ([9, 1, 9, 1], None), ([], None), ([None] * 20, None)])
def test_turning_point(losses, turn):
    assert turning_point(range(len(losses)), losses) == turn


def test_single_low_value_is_no_turning_point():
    losses = [1 - step / 100 for step in range(40)]
    losses[20] = 0.7
    assert turning_point(range(40), losses) == {"step": 39, "has_risen": False}


def test_sets_of_samples_are_few_with_the_first_and_the_last(tmp_path):
    for step in range(0, 1000, 10):
        folder = tmp_path / "samples" / f"step_{step:05d}"
        folder.mkdir(parents=True)
        (folder / "a 100% cat_seed7.mp4").touch()
    listed = list_samples(tmp_path, "sks")
    assert len(listed) == 24 and [listed[0]["step"], listed[-1]["step"]] == [0, 990]
    assert listed[0]["videos"] == [{"file": "a%20100%25%20cat_seed7.mp4", "prompt": "a 100% cat", "seed": 7}]


def test_run_that_fails_says_why_on_its_page(run_main, write_config, monkeypatch, tmp_path):
    from training import step

    losses = step.clip_losses
    monkeypatch.setattr(step, "clip_losses", lambda *arguments: losses(*arguments) * float("nan"))
    code, out, _ = run_main("train_model", "--config", write_config())
    (run,) = (tmp_path / "results").glob("spin-*")
    content = read_page(run)
    assert code == 2 and content["state"] == "stopped" and "the loss is not finite" in content["reason"]
    assert f"watch it: {(run / PAGE_NAME).as_uri()}" in out


def test_pages_cost_at_most_a_hundredth_of_the_time_between_samples(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("training.run_page.time.monotonic", lambda: clock[0])
    page, written = RunPage(PlanStub(), tmp_path, 0), []
    page.write()
    page.took = 0.5

    def write():
        written.append(page.step)
        page.written = clock[0]

    monkeypatch.setattr(page, "write", write)
    for step in range(1, 201):
        clock[0] += 1
        page.add(entry(step))
    assert written == [75, 150]   # 50 seconds apart, at multiples of 25 steps


@pytest.mark.parametrize("seconds, steps", [(10, [1, 25, 50]), (40, [1, 9, 17, 25, 33, 41, 49, 50]),
                                            (400, list(range(1, 51)))])
def test_page_is_written_at_the_first_step_and_every_few_minutes(tmp_path, monkeypatch, seconds, steps):
    clock = [1000.0]
    monkeypatch.setattr("training.run_page.time.monotonic", lambda: clock[0])
    page, written = RunPage(PlanStub(), tmp_path, 0), []
    page.write()
    for step in range(1, 51):
        clock[0] += seconds
        page.add(entry(step))
        written += [step] if page.written == clock[0] else []
    assert written == steps


@pytest.mark.parametrize("start", [0, 1000])
def test_time_left_counts_what_comes_after_the_first_step(tmp_path, monkeypatch, start):
    clock = [1000.0]
    monkeypatch.setattr("training.run_page.time.monotonic", lambda: clock[0])
    page = RunPage(PlanStub(max_train_steps=start + 3000), tmp_path, start)
    clock[0] += 120   # samples before the first step
    page.write()
    for step in range(start + 1, start + 51):
        clock[0] += 60 if step == start + 1 else 0.4
        page.add(entry(step))
        assert step > start + 1 or read_page(tmp_path)["seconds_left"] is None
    page.write()
    assert read_page(tmp_path)["seconds_a_step"] == 0.4 and read_page(tmp_path)["seconds_left"] == 1180
    clock[0] += 49 * 0.6   # samples of step 50
    page.write()
    assert read_page(tmp_path)["seconds_a_step"] == 1 and read_page(tmp_path)["seconds_left"] == 2950


def test_alarm_comes_after_half_an_hour_or_thrice_the_longest_silence_so_far(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("training.run_page.time.monotonic", lambda: clock[0])
    page = RunPage(PlanStub(), tmp_path, 0)
    for silence, after in ((0, 1800), (500, 1800), (2000, 6000), (10, 6000)):
        clock[0] += silence
        page.write()
        assert read_page(tmp_path)["silent_after"] == after


def test_log_and_page_of_the_run_agree(held_out_run):
    content, log = read_page(held_out_run), read_log(held_out_run)
    assert content["state"] == "finished" and content["step"] == log[-1]["step"] == 2
    (run,) = content["runs"]
    assert run["curves"]["exemplar"] == [float(f"{one['exemplar']:.4g}") for one in log if one["step"]]
    assert run["held_out"]["held_out_exemplar"] == [float(f"{one['held_out_exemplar']:.4g}") for one in log]
    assert content["config"]["max_train_steps"] == "2"
    sizes = [clip["native_size"] for part in content["clips"] for clip in part["clips"]]
    assert sorted(sizes) == [[64, 64]] * 4 + [[96, 64]]


def test_scores_that_arrive_during_a_run_stay_on_its_page(tmp_path):
    page = RunPage(PlanStub(), tmp_path, 0)
    page.write()
    show_scores(tmp_path, {"step": 25})
    page.write()
    assert read_page(tmp_path)["scores"] == {"step": 25}


def test_damaged_page_is_written_anew(tmp_path):
    (tmp_path / PAGE_NAME).write_text("nonsense")
    assert read_page(tmp_path) == {} and show_scores(tmp_path, {}) is None
    RunPage(PlanStub(), tmp_path, 0).write()
    assert read_page(tmp_path)["title"] == tmp_path.name
