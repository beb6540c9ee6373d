"""The READMEs and docs/ name files that exist, and the README of each room names every file in it."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_imports import ROOMS, WORKSHOPS

DOCUMENTS = [Path("README.md"), *(path.relative_to(ROOT) for path in sorted(ROOT.glob("[!.]*/README.md"))),
             *(path.relative_to(ROOT) for path in sorted(ROOT.glob("docs/*.md")))]


def files_of_repository() -> set[str]:
    """Return the path of every file, those not committed yet too."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("a copy without git")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.mark.parametrize("room", [*ROOMS, *WORKSHOPS])
def test_readme_of_a_room_names_every_file_in_it(room):
    text = (ROOT / room / "README.md").read_text(encoding="utf-8")
    files = [Path(name).name for name in files_of_repository() if re.fullmatch(rf"{room}/[^/]+", name)]
    named = set(re.findall(r"[\w.]+", text))
    assert [name for name in files if name not in named | {"README.md", "__init__.py"}] == []
    assert len(text.splitlines()) <= 15


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_that_a_document_names_exist(document):
    text, files = (ROOT / document).read_text(encoding="utf-8"), files_of_repository()
    # a path with a folder of this repository in front, or the bare name of a Python file
    named = set(re.findall(r"(?<![\w./-])[\w-]+(?:/[\w.-]+)*\.(?:py|html|yaml|txt|md)\b", text))
    tops = {name.split("/")[0] for name in files if "/" in name}
    paths = [name for name in named if (name.split("/")[0] in tops or name.endswith(".py"))
             and not Path(name).stem.isupper()]   # LIST.txt stands for any list
    beside, bare = f"{document.parent}/", {Path(name).name for name in files}
    assert [path for path in paths if path not in files and f"tests/{path}" not in files
            and beside + path not in files and not ("/" not in path and path in bare)] == []
