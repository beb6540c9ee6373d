"""The offline pages: each runs its own script and style and nothing else."""

import base64
import hashlib
import re

import pytest

from rendering.gallery import write_page
from tests.conftest import ROOT

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "utils").glob("*.html")}


def test_all_pages_are_here():
    assert set(PAGES) == {"video_lightbox.html", "review.html", "run.html"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("tag", ["script", "style"])
def test_policy_names_script_and_style_by_their_hash(page, tag):
    content = re.search(f"<{tag}>(.*?)</{tag}>", PAGES[page], re.S)[1]
    needed = f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    assert needed in PAGES[page], f"{page} was edited: its policy needs {needed}"
    assert "default-src 'none'" in PAGES[page] and "unsafe" not in PAGES[page]


@pytest.mark.parametrize("page", PAGES)
def test_page_names_no_address_and_no_markup_sink(page):
    addresses = re.findall(r"\b(?:https?|wss?)://[^\s'\"]+", PAGES[page])
    assert set(addresses) == {"http://www.w3.org/2000/svg"}   # a name, never fetched
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(",
                          PAGES[page])


@pytest.mark.browser
def test_durations_are_rounded_before_they_are_split(open_page, tmp_path):
    write_page(tmp_path / "run.html", "run.html", {"title": "a run", "config": {}})
    page = open_page(tmp_path / "run.html")
    said = {0.2: "0 s", 59.4: "59 s", 59.6: "1 min 0 s", 119.7: "2 min 0 s", 3599.7: "1 h 0 min",
            3725: "1 h 2 min", 86399.8: "1 d 0 h", 90000: "1 d 1 h"}
    assert {seconds: page.evaluate(f"duration({seconds})") for seconds in said} == said
    page.expected_errors.clear()   # the page misses the curves of its run
