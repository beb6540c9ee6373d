"""The page review.html in a real Chromium, and what --keep makes of the file it saves."""

import json
import re
import shutil

import pytest

from preparation.footage import WORK_FOLDER
from preparation.report import REPORT_NAME
from preparation.review import PAGE_NAME, keep, read_report, write_review
from tests.conftest import ROOT
from tests.preparation.films import film, scene
from utils.errors import UserError
from utils.video import probe

TEMPLATE = (ROOT / "utils" / PAGE_NAME).read_text(encoding="utf-8")
MARKUP = "<img src=x onerror=window.pwned=1>"
STILL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def clip_entry(name: str, caption: str) -> dict:
    return {"file": name, "caption": caption, "proposed": caption, "kept": True, "source": "phone/film.mp4",
            "start": 0, "end": 24, "time": "0:00.00 to 0:01.00", "num_frames": 24, "fps": 24,
            "box": [0, 0, 96, 64], "size": [96, 64], "why": "clear movement"}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "clips"
    for seed, name in enumerate(("one.mp4", "two ü.mp4")):
        film(folder / name, scene(24, seed))
    report = {"clips": [clip_entry("one.mp4", "a man doing the V* dance"), clip_entry("two ü.mp4", MARKUP)],
              "left_out": [{"source": MARKUP, "start": 0, "end": 9, "time": "0:00 to 0:01",
                            "reason": "blurred"}],
              "inputs": [{"file": "phone/film.mp4", "status": "used", "why": ""},
                         {"file": "broken.mp4", "status": "unreadable", "why": "is empty"}]}
    write_review(folder, report, [STILL], {})
    return folder


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_clips_play_and_everything_is_shown_as_text(open_page, folder, width):
    page = open_page(folder / PAGE_NAME, viewport={"width": width, "height": 900})
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.1")
    assert page.eval_on_selector_all("textarea", "all => all.map(one => one.value)")[1] == MARKUP
    assert MARKUP in page.inner_text("#left-out") and "blurred" in page.inner_text("#left-out")
    assert page.evaluate("document.querySelector('#left-out img').naturalWidth") == 1
    assert "broken.mp4: unreadable" in page.inner_text("#files")
    assert page.inner_text("#count") == "2 of 2 kept" and not page.is_visible("#command")
    assert page.evaluate("window.pwned ?? null") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_captions_are_read_from_their_own_side(open_page, folder):
    page = open_page(folder / PAGE_NAME)
    page.fill("textarea >> nth=0", "رجل يرقص رقصة V*!")
    sides = page.eval_on_selector_all("textarea", "all => all.map(one => getComputedStyle(one).direction)")
    assert sides == ["rtl", "ltr"]


@pytest.mark.browser
def test_each_checkbox_names_its_clip(open_page, folder):
    page = open_page(folder / PAGE_NAME)
    for name in ("one.mp4", "two ü.mp4"):
        assert page.get_by_role("checkbox", name=f"keep {name}", exact=True).count() == 1


@pytest.mark.browser
def test_reduced_motion_plays_only_when_asked(open_page, folder):
    page = open_page(folder / PAGE_NAME, reduced_motion="reduce")
    page.wait_for_function("() => [...document.querySelectorAll('video')].every(video => video.readyState)")
    page.wait_for_timeout(300)
    assert page.evaluate("[...document.querySelectorAll('video')].every(one => one.paused && one.controls)")


@pytest.mark.browser
def test_saved_file_is_what_keep_takes(open_page, folder, tmp_path):
    page = open_page(folder / PAGE_NAME, accept_downloads=True)
    page.uncheck("#clips li:nth-child(2) input")
    page.fill("#clips li:nth-child(1) textarea", " a tall man\n doing the V* dance ")
    assert page.inner_text("#count") == "1 of 2 kept"
    with page.expect_download() as download:
        page.click("#save")
    name = download.value.suggested_filename
    assert re.fullmatch(r"clips-\d{8}-\d{6}\.json", name)
    assert page.inner_text("#command").endswith(f"-o {folder} --keep ~/Downloads/{name}")
    page.fill("#clips li:nth-child(1) textarea", "a man")   # it is not in the file
    assert not page.is_visible("#command")
    download.value.save_as(tmp_path / "text.json")
    assert [clip["kept"] for clip in keep(folder, tmp_path / "text.json")["clips"]] == [True, False]
    assert json.loads((folder / "text.json").read_text()) == {"one.mp4": "a tall man doing the V* dance"}
    assert [path.name for path in folder.glob("*.mp4")] == ["one.mp4"]
    page = open_page(folder / PAGE_NAME)
    assert page.inner_text("#count") == "1 of 2 kept"
    page.wait_for_function("() => [...document.querySelectorAll('video')].every(video => video.readyState)")


def test_copy_of_a_folder_without_its_hidden_files_can_be_kept_from(folder, tmp_path):
    """The clips were moved, and then a missing file ended in a traceback."""
    shutil.rmtree(folder / WORK_FOLDER)
    (tmp_path / "choice.json").write_text(json.dumps({"one.mp4": "a cat doing the V* dance"}))
    keep(folder, tmp_path / "choice.json")
    assert json.loads((folder / "text.json").read_text()) == {"one.mp4": "a cat doing the V* dance"}


def test_caption_with_a_control_character_is_refused_before_anything_moves(folder, tmp_path):
    (tmp_path / "choice.json").write_text(json.dumps({"one.mp4": "a\x07b"}))
    with pytest.raises(UserError, match="the caption of one.mp4 has control characters"):
        keep(folder, tmp_path / "choice.json")
    assert len(list(folder.glob("*.mp4"))) == 2


@pytest.mark.browser
def test_further_captions_of_a_clip_are_shown_and_stay(open_page, folder, tmp_path):
    report = read_report(folder)
    report["clips"][0]["caption"] = ["a man doing the V* dance", MARKUP]
    write_review(folder, report, [STILL], {})
    page = open_page(folder / PAGE_NAME, accept_downloads=True)
    assert MARKUP in page.inner_text("#clips li:nth-child(1) .facts")
    page.fill("#clips li:nth-child(1) textarea", "a cat doing the V* dance")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "text.json")
    keep(folder, tmp_path / "text.json")
    assert json.loads((folder / "text.json").read_text())["one.mp4"] == ["a cat doing the V* dance", MARKUP]


def test_dropped_clip_comes_back_when_it_is_named_again(folder, tmp_path):
    both, one = tmp_path / "both.json", tmp_path / "one.json"
    both.write_text(json.dumps({"one.mp4": "a cat", "two ü.mp4": "a dog"}))
    one.write_text(json.dumps({"one.mp4": "a cat"}))
    keep(folder, one)
    assert [clip["kept"] for clip in read_report(folder)["clips"]] == [True, False]
    keep(folder, both)
    assert sorted(path.name for path in folder.glob("*.mp4")) == ["one.mp4", "two ü.mp4"]
    assert json.loads((folder / "text.json").read_text()) == {"one.mp4": "a cat", "two ü.mp4": "a dog"}


def test_clip_that_was_cut_again_is_not_replaced_by_a_copy_that_was_set_aside(folder, tmp_path):
    both, aside = tmp_path / "both.json", film(folder / ".prepared/dropped/one.mp4", scene(9))
    both.write_text(json.dumps({"one.mp4": "a cat", "two ü.mp4": "a dog"}))
    keep(folder, both)
    assert probe(folder / "one.mp4").num_frames == 24 and probe(aside).num_frames == 9


@pytest.mark.parametrize("content, said", [
    ('{"other.mp4": "a cat"}', "names other.mp4, which prepare_clips.py did not put into"),
    ('{"../one.mp4": "a cat"}', "names ../one.mp4"),
    ("{}", "keeps no clip"), ("[1]", "is not of the form"), ('{"one.mp4": 3}', "is not of the form"),
    ('{"one.mp4": []}', "is not of the form"), ('{"one.mp4": ["a cat", " "]}', "is not of the form"),
    ("nonsense", "is not of the form")])
def test_wrong_choice_changes_nothing(folder, tmp_path, content, said):
    before = (folder / REPORT_NAME).read_bytes()
    (tmp_path / "text.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(said)):
        keep(folder, tmp_path / "text.json")
    assert (folder / REPORT_NAME).read_bytes() == before and len(list(folder.glob("*.mp4"))) == 2
