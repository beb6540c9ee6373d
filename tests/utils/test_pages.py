"""The offline pages: each runs its own script and style and nothing else."""

import base64
import hashlib
import re

import pytest

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
