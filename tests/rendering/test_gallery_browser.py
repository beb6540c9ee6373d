"""utils/video_lightbox.html in a real Chromium: videos play, prompts stay text, nothing reaches the network.

Needs playwright for Python and the system's Chromium (apt install chromium); playwright downloads nothing.
Without them these tests skip, unless CI=true or REQUIRE_BROWSER=1.
"""

import functools
import http.server
import os
import shutil
import threading
import unicodedata
from functools import partial
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from rendering.gallery import PAGE_NAME, list_videos, write_gallery
from tests.conftest import ROOT
from utils.files import write_json

pytestmark = pytest.mark.browser

TEMPLATE_PATH = ROOT / "utils" / PAGE_NAME
MARKUP = "<img src=x onerror=window.pwned=1>"
ODD = 'quotes "here" & \'there\', 🕺\nsecond line'


def write_clip(path: Path, size: int = 64, num_frames: int = 8, shade: int = 90) -> None:
    """A real H.264 clip at 8 frames per second: a light bar that moves to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.full((num_frames, size, size, 3), shade, np.uint8)
    for i in range(num_frames):
        frames[i, :, i * size // num_frames:][:, :8] = 240
    imageio.mimwrite(path, frames, fps=8, codec="libx264", pixelformat="yuv420p", macro_block_size=1)


def write_pictures(folder: Path) -> None:
    """Three animated pictures of 64 x 48, one still one, and a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = [Image.new("RGB", (64, 48), shade) for shade in ("red", "blue")]
    for name in ("a.gif", "b.webp", "c.apng"):
        frames[0].save(folder / name, "PNG" if name == "c.apng" else None, save_all=True,
                       append_images=frames[1:], duration=100, loop=0)
    frames[0].save(folder / "still.webp")
    frames[0].save(folder / "frame.png")


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A run: the untuned base and step 500, the same four and one more; one of the base is twice as long."""
    run_dir = tmp_path_factory.mktemp("gallery") / "spin-20260101"
    names = ["a_man_seed7.mp4", "a_man_seed8.mp4", "markup_seed7.mp4", "100% #1? ünï_seed7.mp4"]
    for step, shade in (("00000", 60), ("00500", 120)):
        folder = run_dir / "samples" / f"step_{step}"
        for name in names:
            write_clip(folder / name, shade=shade)
        write_json(folder / "text.json", {"markup_seed7.mp4": MARKUP, names[3]: ODD})
        scores = {"motion": int(step) / 1000 + 0.25}
        write_json(folder / "videos.json", {"a_man_seed7.mp4": {"scores": scores}})
    write_clip(run_dir / "samples" / "step_00000" / names[3], num_frames=16)
    write_clip(run_dir / "samples" / "step_00500" / "a_man_seed1.mp4", size=176)
    write_gallery(run_dir)
    return run_dir


@pytest.fixture
def hand_dropped_dir(run_dir, tmp_path):
    """A copy of the run with the page as it is in the repository, no list in it. A video and a folder begin
    like a checkpoint."""
    folder = shutil.copytree(run_dir, tmp_path / "dropped")
    video = next(folder.rglob("*.mp4"))
    for name in ("checkpoint-charlie.mp4", "checkpoint-9/a.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(video, folder / name)
    stored, written = (partial(unicodedata.normalize, form) for form in ("NFD", "NFC"))
    for name in ("IMG_1.MP4", "b.mp4", "c.mp4", "d.mp4", "f.mp4", "F.mp4",
                 *map(stored, ("gà_seed1.mp4", "hà.mp4", "kà.mp4"))):
        (folder / "named").mkdir(exist_ok=True)
        shutil.copy(video, folder / "named" / name)
    for name, caption in {"IMG_1.TXT": "upper case", "b.mp4.txt": "whole name", "b.txt": "stem",
                          "f.txt": "lower case", written("hà.txt"): "accent in a text"}.items():
        (folder / "named" / name).write_text(caption)
    write_json(folder / "named" / "Text.json", {"C.MP4": "other case", "D": "stem in other case",
                                                written("kà"): "accent in text.json"})
    write_json(folder / "named" / "videos.json", {written("gà_seed1.mp4"): {"prompt": "accent", "seed": 5}})
    write_pictures(folder / "pictures")
    shutil.copy(TEMPLATE_PATH, folder / PAGE_NAME)
    return folder


@pytest.fixture
def serve():
    """Serves a folder like `python -m http.server` does; gives its address."""
    servers = []

    def serve(folder):
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        handler.func.log_message = lambda *_: None
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def wait_until_playing(page, selector: str = "#grid video") -> None:
    """Waits until every one of these videos has data and its time has moved."""
    page.wait_for_function("""selector => {
        const players = [...document.querySelectorAll(selector)];
        return players.length && players.every(p => p.readyState >= 2 && p.currentTime > 0.2 && !p.paused);
    }""", arg=selector, timeout=10_000)


def texts(page, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "all => all.map(one => one.textContent)")


def listed(page) -> list[dict]:
    """What the page knows about the videos, in the shape of list_videos."""
    return page.evaluate("""videos.map(({file, prompt, seed, group, scores}) => (
        {file, prompt, seed: seed === null ? null : Number(seed), group, scores: Object.fromEntries(scores)}
    ))""")


def test_videos_play_from_disk(open_page, run_dir):
    page = open_page(run_dir / PAGE_NAME, viewport={"width": 1600, "height": 1400})
    wait_until_playing(page)
    sizes = page.eval_on_selector_all("#grid video", "all => all.map(v => [v.videoWidth, v.className])")
    assert sizes == [[64, "tiny"]] * 5 + [[176, ""]] + [[64, "tiny"]] * 3
    assert page.inner_text("#title") == page.title() == "spin-20260101"
    assert page.inner_text("#count") == "9 videos"
    assert listed(page) == list_videos(run_dir)


def test_prompts_are_text_and_captions_complete(open_page, run_dir):
    page = open_page(run_dir / PAGE_NAME)
    wait_until_playing(page, "#grid .tile:first-child video")
    tiles = page.eval_on_selector_all(".tile", """tiles => tiles.map(
        tile => [...tile.querySelectorAll('.prompt, .facts > *')].map(one => one.textContent))""")
    assert tiles[0] == [ODD, "seed 7", "step 0 (base)"]
    assert tiles[1] == ["a man", "seed 7", "step 0 (base)", "motion 0.25"]
    assert tiles[3] == [MARKUP, "seed 7", "step 0 (base)"]
    assert page.evaluate("[window.pwned, ...document.images].map(one => one?.id)") == [None, "shown-picture"]


def test_prompts_are_read_from_their_own_side(open_page, tmp_path):
    for name in ("a", "b"):
        write_clip(tmp_path / name / "one_seed7.mp4")
        (tmp_path / name / "one_seed7.txt").write_text("رجل يرقص رقصة V*!", encoding="utf-8")
    page = open_page(write_gallery(tmp_path))
    page.click(".stage >> nth=0")
    page.keyboard.press("Escape")
    page.click("#view-compare")
    sides = page.eval_on_selector_all(".prompt", "all => all.map(one => getComputedStyle(one).direction)")
    assert sides == ["rtl"] * 4   # two tiles, the row and the lightbox


def test_policy_stops_markup_that_got_into_the_page(open_page, run_dir):
    attack = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script><script src=x.js></script>"
    page_path = run_dir / "attacked.html"
    whole_page = (run_dir / PAGE_NAME).read_text(encoding="utf-8")
    page_path.write_text(whole_page.replace("<main>", attack + "<main>"), encoding="utf-8")
    page = open_page(page_path)
    wait_until_playing(page, "#grid .tile:first-child video")
    assert page.evaluate("window.pwned ?? null") is None
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>'")
    stopped = ("Content Security Policy", "TrustedHTML", "ERR_FILE_NOT_FOUND")   # the picture x is not there
    assert all(any(reason in error for reason in stopped) for error in page.expected_errors)
    page.expected_errors.clear()
    page_path.unlink()


def test_search_chips_and_order_choose_what_is_shown(open_page, run_dir):
    page = open_page(run_dir / PAGE_NAME)
    page.keyboard.press("/")
    page.keyboard.type("MAN seed:7")
    assert texts(page, "#grid .prompt") == ["a man", "a man"]
    assert page.inner_text("#count") == "2 of 9 videos"
    page.select_option("#order", "motion, highest first")
    assert texts(page, "#grid .score") == ["motion 0.75", "motion 0.25"]
    page.click("#groups .chip >> text=step 500")
    assert texts(page, "#grid .score") == ["motion 0.75"]
    page.fill("#search", "onerror")
    assert texts(page, "#grid .prompt") == [MARKUP]
    page.fill("#search", "no such words")
    assert texts(page, "#grid .prompt") == [] and page.is_visible("#nothing")


def test_lightbox_works_from_the_keyboard(open_page, run_dir):
    page = open_page(run_dir / PAGE_NAME)
    page.focus("#grid .tile:nth-child(2) .stage")
    page.keyboard.press("Enter")
    wait_until_playing(page, "#shown")
    assert page.inner_text("#shown-prompt") == "a man" and "2 of 9" in page.inner_text("#shown-facts")
    assert page.evaluate("[...document.querySelectorAll('#grid video')].every(player => player.paused)")
    for key, where in (("ArrowRight", "3 of 9"), ("ArrowLeft", "2 of 9"), ("ArrowDown", "7 of 9"),
                       ("End", "9 of 9"), ("ArrowRight", "1 of 9"), ("ArrowLeft", "9 of 9"),
                       ("Home", "1 of 9")):
        page.keyboard.press(key)
        assert where in page.inner_text("#shown-facts"), key
    assert page.inner_text("#shown-prompt") == ODD
    wait_until_playing(page, "#shown")
    page.keyboard.press("Space")
    assert page.evaluate("shown.paused")
    page.keyboard.press("Home")
    page.evaluate("shown.currentTime = 0.3")     # the third frame, from 0.25 to 0.375 s
    for key, middle in ((".", 0.4375), (".", 0.5625), (",", 0.4375)):
        page.keyboard.press(key)
        assert page.evaluate("shown.currentTime") == pytest.approx(middle, abs=0.03)
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert not page.is_visible("#lightbox")
    # the browser closes first and tells the page a moment later, which then moves the focus
    page.wait_for_function("() => document.activeElement.ariaLabel === 'Open: a man, seed 8, step 0 (base)'")
    wait_until_playing(page, "#grid .tile:first-child video")


@pytest.fixture
def many_steps_dir(tmp_path):
    """One prompt and seed at twelve steps, and one more video of another prompt."""
    write_clip(tmp_path / "clip.mp4")
    for step in range(12):
        folder = tmp_path / "run" / f"step_{step:05d}"
        folder.mkdir(parents=True)
        os.link(tmp_path / "clip.mp4", folder / "a_man_seed7.mp4")
    os.link(tmp_path / "clip.mp4", folder / "b_cat_seed7.mp4")
    write_gallery(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("how", ["click", "Enter"])
def test_keys_work_after_a_chip_was_chosen(open_page, many_steps_dir, how):
    page = open_page(many_steps_dir / PAGE_NAME)
    page.click("#grid .stage >> nth=0")
    chip = page.locator("#siblings .chip").nth(3)
    chip.click() if how == "click" else chip.press("Enter")
    assert "4 of 13" in page.inner_text("#shown-facts")
    assert page.evaluate("document.activeElement.textContent") == "step 3"
    for key, where in (("ArrowDown", "5 of 13"), ("ArrowRight", "6 of 13")):
        page.keyboard.press(key)
        assert where in page.inner_text("#shown-facts"), key
    page.keyboard.press("Space")
    assert page.evaluate("shown.paused")
    page.keyboard.press("End")     # a video without chips
    page.keyboard.press("Home")
    assert "1 of 13" in page.inner_text("#shown-facts")
    page.click("#shown-prompt")    # moves the focus out of the dialog
    page.keyboard.press("ArrowRight")
    assert "2 of 13" in page.inner_text("#shown-facts")


def test_current_chip_stays_in_sight_and_the_prompt_too(open_page, many_steps_dir):
    page = open_page(many_steps_dir / PAGE_NAME, viewport={"width": 390, "height": 420})
    page.evaluate("for (const video of videos) video.prompt += ' and so on'.repeat(40)")
    page.click("#grid .stage >> nth=0")
    in_sight = """() => {
        const chip = $('siblings').querySelector('[aria-current=true]').getBoundingClientRect();
        return chip.left >= 0 && chip.right <= innerWidth;
    }"""
    for _ in range(11):
        page.keyboard.press("ArrowDown")
    assert "12 of 13" in page.inner_text("#shown-facts") and page.evaluate(in_sight)
    page.keyboard.press("Home")
    assert page.evaluate(in_sight)
    assert page.evaluate("document.querySelector('.panel').scrollTop") == 0


def test_compare_pairs_prompt_and_seed_across_steps_in_step(open_page, run_dir):
    page = open_page(run_dir / PAGE_NAME, viewport={"width": 1280, "height": 1800})
    page.click("#view-compare")
    assert texts(page, ".row h2 .prompt") == [ODD, "a man", "a man", MARKUP]
    assert texts(page, ".row h2 small") == ["seed 7", "seed 7", "seed 8", "seed 7"]
    wait_until_playing(page, ".row:nth-child(2) video")
    paired = page.eval_on_selector_all(".row:nth-child(2) video", "all => all.map(player => player.src)")
    folder = (run_dir / "samples").as_uri()
    assert paired == [f"{folder}/step_00000/a_man_seed7.mp4", f"{folder}/step_00500/a_man_seed7.mp4"]
    # Restarted together: whenever both run, both are at the same time, also a few rounds on.
    drift = page.evaluate("""async () => {
        const [a, b] = document.querySelectorAll('.row:nth-child(2) video');
        let most = 0, samples = 0;
        for (let i = 0; i < 40; i++) {
            await new Promise(done => setTimeout(done, 50));
            if (a.paused || b.paused || a.ended || b.ended || a.seeking || b.seeking) continue;
            most = Math.max(most, Math.abs(a.currentTime - b.currentTime)); samples++;
        }
        return samples > 10 ? most : 'never played';
    }""")
    assert drift < 0.125     # one frame
    # The shorter one waits on its last frame for the longer one.
    page.wait_for_function("""() => {
        const [long, short] = document.querySelectorAll('.row:first-child video');
        return short.ended && !long.ended && long.currentTime > 1.2;
    }""", timeout=8000)
    page.fill("#search", "man")
    page.click("#groups .chip >> text=step 500")
    assert page.is_visible("#nothing")


def test_hand_dropped_page_asks_for_its_folder(open_page, hand_dropped_dir):
    page = open_page(hand_dropped_dir / PAGE_NAME)
    assert page.is_visible("#picker") and not page.is_visible("#search")
    page.set_input_files("#pick-folder", hand_dropped_dir)
    wait_until_playing(page, "#grid .tile:first-child video")
    assert not page.is_visible("#picker") and page.inner_text("#title") == "dropped"
    assert sorted(listed(page), key=str) == sorted(list_videos(hand_dropped_dir), key=str)
    assert page.get_attribute("#grid video", "src").startswith("blob:")


def test_folder_dropped_on_the_page_is_read(open_page, hand_dropped_dir):
    page = open_page(hand_dropped_dir / PAGE_NAME)
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": {
            "items": [], "files": [str(hand_dropped_dir)], "dragOperationsMask": 1}})
    wait_until_playing(page, "#grid .tile:first-child video")
    assert sorted(listed(page), key=str) == sorted(list_videos(hand_dropped_dir), key=str)


def drag(page, start: str, x: float, y: float) -> None:
    """Hold the mouse button down on an element and move the mouse to a place of the page."""
    box = page.locator(start).first.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 30, box["y"] + 16, steps=4)
    page.mouse.move(x, y, steps=8)


def is_covered(page) -> bool:
    """Whether the page waits for a drop. An invisible layer over it takes the clicks then."""
    return page.evaluate("document.body.classList.contains('dropping')")


@pytest.mark.parametrize("ends_by", ["drop", "elsewhere", "Escape"])
def test_text_is_dragged_into_the_search_box(open_page, run_dir, ends_by):
    page = open_page(run_dir / PAGE_NAME)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#grid .prompt'))")
    box = page.locator("#search").bounding_box()
    drag(page, "#grid .prompt", *((500, 500) if ends_by == "elsewhere" else (box["x"] + 30, box["y"] + 10)))
    assert not is_covered(page)
    if ends_by == "Escape":
        page.keyboard.press("Escape")
    page.mouse.up()
    page.wait_for_timeout(100)
    prompt = " ".join(texts(page, "#grid .prompt")[0].split())   # the box has one line
    assert page.input_value("#search").strip() == (prompt if ends_by == "drop" else "")
    assert not is_covered(page) and not page.is_visible("#picker")


def test_picture_of_the_page_is_no_file_from_outside(open_page, tmp_path):
    write_pictures(tmp_path)
    write_gallery(tmp_path)
    page = open_page(tmp_path / PAGE_NAME)
    page.click("#grid .tile >> nth=0")
    page.wait_for_function("() => document.querySelector('#shown-picture').naturalWidth > 0")
    page.evaluate("addEventListener('dragenter', event => { window.types = [...event.dataTransfer.types]; })")
    drag(page, "#shown-picture", 500, 60)
    assert page.evaluate("types.length") and not is_covered(page)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert not is_covered(page) and not page.is_visible("#picker")


def test_folder_is_read_after_a_drag_whose_element_was_removed(open_page, run_dir, hand_dropped_dir):
    """Nothing tells the end of such a drag."""
    page = open_page(run_dir / PAGE_NAME)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#grid .prompt'))")
    drag(page, "#grid .prompt", 500, 500)
    page.evaluate("document.querySelector('#grid .tile').remove()")
    page.mouse.up()
    page.mouse.move(300, 300)
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": {
            "items": [], "files": [str(hand_dropped_dir)], "dragOperationsMask": 1}})
    page.wait_for_function("() => document.querySelector('#title').textContent === 'dropped'", timeout=5000)


def test_files_that_are_dragged_away_again_leave_the_page_free(open_page, run_dir):
    page = open_page(run_dir / PAGE_NAME)
    session = page.context.new_cdp_session(page)
    for kind, covered in (("dragEnter", True), ("dragOver", True), ("dragCancel", False)):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": {
            "items": [], "files": [str(run_dir)], "dragOperationsMask": 1}})
        if not covered:
            page.mouse.move(200, 200)   # Chromium's own cancelling sends no event
        page.wait_for_function("on => document.body.classList.contains('dropping') === on", arg=covered)


def test_hand_dropped_page_reads_the_server_listing(open_page, hand_dropped_dir, serve):
    page = open_page(serve(hand_dropped_dir) + PAGE_NAME)
    wait_until_playing(page, "#grid .tile:first-child video")
    assert sorted(listed(page), key=str) == sorted(list_videos(hand_dropped_dir), key=str)


def test_frames_of_a_large_video_are_found_on_a_server_without_ranges(open_page, serve, tmp_path):
    num_bytes = 9_000_000   # Chromium seeks in small videos, which it reads to their end
    for name in ("one_seed1.mp4", "two_seed2.mp4"):
        write_clip(tmp_path / name)
        with (tmp_path / name).open("ab") as file:
            file.write(num_bytes.to_bytes(4, "big") + b"free" + bytes(num_bytes - 8))
    write_gallery(tmp_path)
    page = open_page(serve(tmp_path) + PAGE_NAME)
    page.evaluate("""() => {
        const revoke = URL.revokeObjectURL;
        window.letGo = [];
        URL.revokeObjectURL = address => { letGo.push(address); revoke(address); };
    }""")
    page.click(".stage >> nth=0")
    addresses = []
    for _ in range(2):
        page.wait_for_function("() => shown.seekable.length && shown.seekable.end(0) === shown.duration")
        wait_until_playing(page, "#shown")
        page.keyboard.press("Space")
        page.evaluate("$('scrub').value = 0.3; $('scrub').oninput()")     # the third frame
        for key, middle in ((".", 0.4375), (".", 0.5625), (",", 0.4375)):
            page.keyboard.press(key)
            assert page.evaluate("shown.currentTime") == pytest.approx(middle, abs=0.03)
        addresses.append(page.evaluate("shown.currentSrc"))
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
    assert all(address.startswith("blob:") for address in addresses)
    page.keyboard.press("Escape")
    page.wait_for_function("addresses => addresses.every(address => letGo.includes(address))", arg=addresses)


@pytest.mark.parametrize("listing", [
    '<a href="?C=N;O=D">Name</a> <a href="/">Parent</a> <a href="a%20b.mp4">a</a> <a href="x%26y.mp4">x</a>',
    '<a href="../">../</a>\r\n<a href="a%20b.mp4">a b..&gt;</a>\r\n<A HREF="x&amp;y.mp4">x&amp;y..&gt;</A>',
    "<a href='/a%20b.mp4'>a b.mp4</a><a href='./x%26y.mp4'>x&y</a><a href='https://example.com/z.mp4'>z</a>"
    "<a href='javascript:pwned=1'>j</a><a href='%zz.mp4'>broken</a><a href='deep/er.mp4'>not here</a>",
], ids=["apache", "nginx", "others"])
def test_listings_of_other_servers_are_understood(open_page, serve, tmp_path, listing):
    write_clip(tmp_path / "a b.mp4", num_frames=4)
    write_clip(tmp_path / "x&y.mp4", num_frames=4)
    shutil.copy(TEMPLATE_PATH, tmp_path / PAGE_NAME)
    (tmp_path / "index.html").write_text(f"<!doctype html><h1>Index of /</h1>{listing}", encoding="utf-8")
    page = open_page(serve(tmp_path) + PAGE_NAME)
    wait_until_playing(page)
    assert texts(page, "#grid .prompt") == ["a b", "x&y"]


def test_server_without_a_listing_leads_to_the_picker(open_page, serve, tmp_path):
    shutil.copy(TEMPLATE_PATH, tmp_path / PAGE_NAME)
    page = open_page(serve(tmp_path) + PAGE_NAME)
    page.wait_for_selector("#picker:visible")
    assert "names no videos" in page.inner_text("#picker-reason")


def test_phone_fits_and_swipes(open_page, run_dir):
    phone = {"viewport": {"width": 375, "height": 700}, "has_touch": True, "is_mobile": True}
    page = open_page(run_dir / PAGE_NAME, **phone)
    fits = "[document.documentElement, document.querySelector('.panel')].every(one => one.scrollWidth <= 375)"
    wait_until_playing(page, "#grid .tile:first-child video")
    assert page.evaluate(fits)
    page.tap("#grid .tile:nth-child(2) .stage")
    wait_until_playing(page, "#shown")
    session = page.context.new_cdp_session(page)

    def swipe(*points):
        for kind, position in zip(("touchStart", "touchMove", "touchEnd"), (*points, None), strict=True):
            touches = [] if position is None else [{"x": position[0], "y": position[1]}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    swipe((300, 200), (100, 210))
    assert "3 of 9" in page.inner_text("#shown-facts")
    swipe((100, 200), (300, 190))
    assert "2 of 9" in page.inner_text("#shown-facts") and page.evaluate(fits)
    swipe((200, 100), (210, 300))
    assert not page.is_visible("#lightbox")
    page.tap("#view-compare")
    assert page.evaluate(fits)


def test_reduced_motion_plays_only_when_asked(open_page, run_dir):
    page = open_page(run_dir / PAGE_NAME, reduced_motion="reduce")
    # a function: the page's policy refuses to evaluate a bare expression again and again
    page.wait_for_function("() => document.querySelector('#grid video')?.readyState >= 2")
    still = "[...document.querySelectorAll('#grid video')].every(v => v.paused && !v.currentTime)"
    assert page.evaluate(still)
    page.click("#play-all")
    wait_until_playing(page, "#grid .tile:first-child video")


def test_many_videos_load_only_near_the_viewport(open_page, tmp_path):
    write_clip(tmp_path / "clip_seed0.mp4")
    for seed in range(1, 500):
        os.link(tmp_path / "clip_seed0.mp4", tmp_path / f"clip_seed{seed}.mp4")
    page = open_page(write_gallery(tmp_path), viewport={"width": 1000, "height": 700})
    wait_until_playing(page, "#grid .tile:first-child video")
    assert page.locator(".tile").count() == 500
    for y in range(0, 30_000, 3000):
        page.evaluate("y => scrollTo(0, y)", y)
        page.wait_for_timeout(60)
    assert page.evaluate("document.querySelectorAll('#grid video[src]').length") <= 75
    page.evaluate("scrollTo(0, 1e6)")
    wait_until_playing(page, "#grid .tile:last-child video")
    assert page.evaluate("[...document.querySelectorAll('#grid video')].filter(v => !v.paused).length") < 40


def test_broken_video_is_named_and_the_others_play(open_page, tmp_path):
    write_clip(tmp_path / "whole.mp4")
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:500])
    page = open_page(write_gallery(tmp_path))
    wait_until_playing(page, "#grid .tile:nth-child(2) video")
    page.wait_for_selector(".broken .note:visible")
    assert page.inner_text(".broken .note") == "broken.mp4 cannot be played here."
    assert not page.is_visible("#picker")


def test_animated_pictures_are_shown_beside_videos(open_page, tmp_path):
    write_pictures(tmp_path)
    write_clip(tmp_path / "z.mp4")
    page = open_page(write_gallery(tmp_path))
    wait_until_playing(page)
    pictures = "[...document.querySelectorAll('#grid img')]"
    page.wait_for_function(f"() => {pictures}.every(one => one.naturalWidth)")
    sizes = page.evaluate(f"{pictures}.map(one => [one.naturalWidth, one.naturalHeight])")
    assert sizes == [[64, 48]] * 3
    assert page.inner_text("#count") == "4 videos"

    page.click(".stage >> nth=1")
    shown = "['shown', 'shown-picture', 'transport'].map(id => document.getElementById(id).checkVisibility())"
    assert page.evaluate(shown) == [False, True, False]
    page.wait_for_function("() => document.querySelector('#shown-picture').clientWidth >= 64 * 4")
    page.keyboard.press(".")   # there are no frames to step to, and nothing breaks
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shown) == [True, False, True]
    wait_until_playing(page, "#shown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(shown) == [False, True, False]
    assert page.locator("#screen.broken").count() == 0


def test_animated_pictures_stand_still_while_all_is_paused(open_page, tmp_path):
    write_pictures(tmp_path)
    page = open_page(write_gallery(tmp_path), reduced_motion="reduce")
    seen = """['img', 'canvas'].map(name => [...document.querySelectorAll(`#grid ${name}`)].map(
        one => one.checkVisibility() && one.clientWidth > 64))"""
    page.wait_for_function("() => document.querySelectorAll('#grid canvas').length === 3")
    assert page.evaluate(seen) == [[False] * 3, [True] * 3]
    page.click("#play-all")
    assert page.evaluate(seen) == [[True] * 3, [False] * 3]
    page.click("#play-all")
    assert page.evaluate(seen) == [[False] * 3, [True] * 3]


def test_page_moved_away_from_its_videos_offers_the_picker(open_page, run_dir, tmp_path):
    shutil.copy(run_dir / PAGE_NAME, tmp_path / PAGE_NAME)
    page = open_page(tmp_path / PAGE_NAME)
    page.wait_for_selector("#picker:visible")
    assert "cannot be found beside it" in page.inner_text("#picker-reason")
    page.set_input_files("#pick-folder", run_dir)
    wait_until_playing(page, "#grid .tile:first-child video")
    page.expected_errors[:] = [error for error in page.expected_errors if "ERR_FILE_NOT_FOUND" not in error]


def test_name_that_is_not_utf8_plays_from_disk(open_page, tmp_path):
    write_clip(tmp_path / "clip.mp4")
    try:
        os.rename(tmp_path / "clip.mp4", os.fsencode(tmp_path) + b"/caf\xe9_seed1.mp4")
    except OSError:
        pytest.skip("this file system keeps names in Unicode")
    page = open_page(write_gallery(tmp_path))
    wait_until_playing(page)
