"""rendering/gallery.py: what is listed, what is told about it, and that no prompt becomes markup."""

import json
import os
import re
import unicodedata
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from rendering.gallery import LIST_BLOCK, PAGE_NAME, forget_scores, list_videos, write_gallery
from tests.conftest import ROOT

TEMPLATE = (ROOT / "utils" / PAGE_NAME).read_text(encoding="utf-8")


def touch(folder: Path, *names: str) -> None:
    """Files that only need to exist: the gallery never opens a video."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def embedded_list(page_path: Path) -> dict:
    before, after = LIST_BLOCK.split("{}")
    return json.loads(page_path.read_text(encoding="utf-8").split(before)[1].split(after)[0])


def files(folder: Path) -> list[str]:
    return [video["file"] for video in list_videos(folder)]


def test_run_folder_lists_all_steps_in_natural_order(tmp_path):
    touch(tmp_path, *(f"samples/step_{step}/a_seed7.mp4" for step in ("10000", "00000", "900")))
    assert [(video["file"], video["group"]) for video in list_videos(tmp_path)] == [
        ("samples/step_00000/a_seed7.mp4", "step 0 (base)"),
        ("samples/step_900/a_seed7.mp4", "step 900"),
        ("samples/step_10000/a_seed7.mp4", "step 10000"),
    ]


def test_folder_of_runs_names_run_and_step(tmp_path):
    touch(tmp_path, "spin-1/samples/step_00500/a.mp4", "walk-2/samples/step_00500/a.mp4", "top.mp4")
    groups = [video["group"] for video in list_videos(tmp_path)]
    assert groups == ["spin-1 / step 500", "", "walk-2 / step 500"]


def test_hidden_unfinished_and_checkpoint_files_are_not_listed(tmp_path):
    touch(tmp_path, "a.mp4", "B.MP4", "clip.webm", "1/2/3/seen.mp4", "1/2/3/4/too_deep.mp4", "notes.txt",
          ".hidden.mp4", "~a.mp4", "b.tmp.mp4", ".b.123.partial.mp4", "b.mp4.tmp", ".git/a.mp4",
          "checkpoint-1/a.mp4")
    assert files(tmp_path) == ["1/2/3/seen.mp4", "a.mp4", "B.MP4", "clip.webm"]


def test_video_of_a_prompt_that_begins_like_a_checkpoint_is_listed(tmp_path):
    touch(tmp_path, "checkpoint-charlie_seed1.mp4", "a/checkpoint-9.mp4", "checkpoint-9/a/b.mp4")
    assert files(tmp_path) == ["a/checkpoint-9.mp4", "checkpoint-charlie_seed1.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_never_lead_out_of_the_folder(tmp_path):
    touch(tmp_path / "elsewhere", "secret.mp4")
    write_json(tmp_path / "elsewhere" / "text.json", {"a.mp4": "secret"})
    folder = tmp_path / "videos"
    touch(folder, "a.mp4")
    (folder / "link.mp4").symlink_to(tmp_path / "elsewhere" / "secret.mp4")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    (folder / "text.json").symlink_to(tmp_path / "elsewhere" / "text.json")
    (folder / "same.mp4").symlink_to(folder / "a.mp4")
    prompts = {video["file"]: video["prompt"] for video in list_videos(folder)}
    assert prompts == {"a.mp4": "a", "same.mp4": "same"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_does_not_hang_the_listing(tmp_path):
    touch(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "text.json")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert files(tmp_path) == ["a.mp4"]


def test_prompt_and_seed_come_from_the_name_without_sidecars(tmp_path):
    touch(tmp_path, "a_man_skiing_seed42.mp4", "walk.mp4", "two_seed3_seed4.mp4", "neg_seed-1.mp4")
    told = {video["file"]: (video["prompt"], video["seed"]) for video in list_videos(tmp_path)}
    assert told == {"a_man_skiing_seed42.mp4": ("a man skiing", 42), "walk.mp4": ("walk", None),
                    "two_seed3_seed4.mp4": ("two seed3", 4), "neg_seed-1.mp4": ("neg", -1)}


def test_videos_json_wins_over_txt_over_text_json_over_name(tmp_path):
    touch(tmp_path, "a_seed1.mp4", "b_seed2.mp4", "c_seed3.mp4", "d_seed4.mp4", "e_seed5.mp4")
    write_json(tmp_path / "text.json", {"a_seed1.mp4": "from text.json", "b_seed2.mp4": "from text.json",
                                        "c_seed3.mp4": "from text.json", "d_seed4": ["", "by its stem"]})
    (tmp_path / "a_seed1.txt").write_text("from txt")
    (tmp_path / "b_seed2.txt").write_text("\ufefffrom txt\n", encoding="utf-8")
    write_json(tmp_path / "videos.json", {"a_seed1.mp4": {
        "prompt": "from videos.json", "seed": 9, "group": "tuned", "scores": {"motion": 0.5}}})
    a, b, c, d, e = list_videos(tmp_path)
    assert a == {"file": "a_seed1.mp4", "prompt": "from videos.json", "seed": 9, "group": "tuned",
                 "scores": {"motion": 0.5}}
    assert (b["prompt"], b["seed"]) == ("from txt", 2)
    assert (c["prompt"], c["seed"], c["scores"]) == ("from text.json", 3, {})
    assert (d["prompt"], e["prompt"]) == ("by its stem", "e")


def test_captions_are_found_under_the_names_that_training_knows(tmp_path):
    touch(tmp_path, "IMG_1.MOV", "b.mp4", "c.mp4", "D.mp4", "e.mp4")
    for name, caption in {"IMG_1.TXT": "upper case", "b.mp4.txt": "whole name", "b.txt": "stem"}.items():
        (tmp_path / name).write_text(caption)
    write_json(tmp_path / "Text.json",
               {"C.MP4": "other case", "d": "stem in other case", "e.mp4": {"odd": 1}})
    assert {video["file"]: video["prompt"] for video in list_videos(tmp_path)} == {
        "IMG_1.MOV": "upper case", "b.mp4": "whole name", "c.mp4": "other case",
        "D.mp4": "stem in other case", "e.mp4": "e"}


def test_it_does_not_matter_how_accents_are_stored(tmp_path):
    stored, written = (partial(unicodedata.normalize, form) for form in ("NFD", "NFC"))
    touch(tmp_path, *map(stored, ("danse_à_deux_seed1.mp4", "été.mp4", "où.mp4")))
    facts = {"prompt": "a dance", "seed": 7}
    write_json(tmp_path / "videos.json", {written("danse_à_deux_seed1.mp4"): facts})
    (tmp_path / written("Été.txt")).write_text("summer")
    write_json(tmp_path / "text.json", {written("où.mp4"): "where"})
    assert sorted((video["prompt"], video["seed"]) for video in list_videos(tmp_path)) == [
        ("a dance", 7), ("summer", None), ("where", None)]


def test_clip_takes_no_caption_of_one_that_differs_in_letter_case(tmp_path):
    touch(tmp_path, "img.mp4", "IMG.mp4")
    (tmp_path / "img.txt").write_text("a cat")
    assert {video["file"]: video["prompt"] for video in list_videos(tmp_path)} == {
        "img.mp4": "a cat", "IMG.mp4": "IMG"}


def test_animated_pictures_are_listed_and_still_ones_are_not(tmp_path):
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue")]
    for name in ("a.gif", "b.webp", "c.apng"):
        frames[0].save(tmp_path / name, "PNG" if name == "c.apng" else None, save_all=True,
                       append_images=frames[1:])
    frames[0].save(tmp_path / "still.webp")
    frames[0].save(tmp_path / "frame.png")
    touch(tmp_path, "d.wmv", "e.3gp", "broken.webp")
    assert files(tmp_path) == ["a.gif", "b.webp", "c.apng", "d.wmv", "e.3gp"]


@pytest.mark.parametrize("content", [
    b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a_seed1.mp4": 3}',
    b'{"a_seed1.mp4": {"prompt": 1, "seed": "x", "group": [], "scores": [1]}}',
    b'{"a_seed1.mp4": {"prompt": "  ", "seed": true, "scores": null}}',
    b'{"a_seed1.mp4": {"seed": ' + b"9" * 5000 + b"}}",
])
def test_malformed_sidecars_fall_back_to_the_name(tmp_path, content):
    touch(tmp_path, "a_seed1.mp4")
    (tmp_path / "videos.json").write_bytes(content)
    (tmp_path / "text.json").write_bytes(content)
    assert list_videos(tmp_path) == [
        {"file": "a_seed1.mp4", "prompt": "a", "seed": 1, "group": "", "scores": {}}]


def test_only_finite_scores_are_kept(tmp_path):
    touch(tmp_path, "a.mp4")
    scores = '{"nan": NaN, "inf": Infinity, "huge": 1e999, "text": "1", "yes": true, "good": 0.5}'
    (tmp_path / "videos.json").write_text('{"a.mp4": {"scores": %s}}' % scores)
    assert list_videos(tmp_path)[0]["scores"] == {"good": 0.5}


def test_large_seed_reaches_the_page_unrounded(tmp_path):
    touch(tmp_path, f"a_seed{2**63 - 1}.mp4")
    assert embedded_list(write_gallery(tmp_path))["videos"][0]["seed"] == str(2**63 - 1)


def test_scores_of_videos_to_be_replaced_are_forgotten(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_json(tmp_path / "videos.json", {"a.mp4": {"prompt": "a man", "scores": {"motion": 0.5}},
                                          "b.mp4": {"scores": {"motion": 0.7}}, "odd": 3})
    forget_scores(tmp_path, ["a.mp4", "odd", "new.mp4"])
    content = json.loads((tmp_path / "videos.json").read_text())
    assert content == {"a.mp4": {"prompt": "a man"}, "b.mp4": {"scores": {"motion": 0.7}}, "odd": 3}


NASTY = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--<script>", "]]>",
         "&lt;b&gt;", "'\"`${1}\\", "a\nb\r\nc", "a\u2028b\u2029",
         "\x00\x1b", "🕺🏽 наклон 跳舞", "\ud800 lone"]


@pytest.mark.parametrize("prompt", NASTY)
def test_prompt_stays_data_in_the_page(tmp_path, prompt):
    touch(tmp_path, "a.mp4")
    write_json(tmp_path / "text.json", {"a.mp4": prompt})
    page_path = write_gallery(tmp_path)
    assert embedded_list(page_path)["videos"][0]["prompt"] == prompt.strip()
    assert tags(page_path.read_text(encoding="utf-8")) == tags(TEMPLATE)


def tags(page: str) -> list:
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, attributes))
    parser.feed(page)
    return found


def test_page_differs_from_the_template_only_in_its_list(tmp_path):
    touch(tmp_path, "a.mp4")
    page = write_gallery(tmp_path).read_text(encoding="utf-8")
    assert re.sub(r'(id="list">).*(</script>\n<script>)', r"\1\2", page) == TEMPLATE


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path):
    touch(tmp_path, "b.mp4", "a.mp4")
    first = write_gallery(tmp_path).read_bytes()
    assert write_gallery(tmp_path).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", PAGE_NAME]


def test_empty_folder_gets_a_page_with_an_empty_list(tmp_path):
    assert embedded_list(write_gallery(tmp_path)) == {"title": tmp_path.name, "videos": []}


def test_title_is_the_folder_or_run_and_step(tmp_path):
    folder = tmp_path / "spin-1" / "samples" / "step_00500"
    folder.mkdir(parents=True)
    assert embedded_list(write_gallery(tmp_path / "spin-1"))["title"] == "spin-1"
    assert embedded_list(write_gallery(folder))["title"] == "spin-1 · step 500"


def test_file_name_that_is_not_utf8_is_listed(tmp_path):
    try:
        touch(tmp_path, os.fsdecode(b"caf\xe9_seed1.mp4"))
    except OSError:
        pytest.skip("this file system keeps names in Unicode")
    assert embedded_list(write_gallery(tmp_path))["videos"][0]["file"] == "caf\udce9_seed1.mp4"
