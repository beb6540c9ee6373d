"""Looking at clips: each file once, whatever its name; a damaged or stale entry is made again."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import write_clip
from training import looking
from training.looking import look_at_clips
from utils.errors import UserError
from utils.video import probe


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "a.mp4", num_frames=5)


@pytest.fixture
def decoded(monkeypatch) -> list[Path]:
    """The files that are decoded from here on."""
    files = []
    monkeypatch.setattr(looking, "probe", lambda path: files.append(path) or probe(path))
    return files


def test_what_was_found_is_kept_by_content(clip, tmp_path, decoded):
    first = look_at_clips([clip], tmp_path / "cache")[clip]
    shutil.copy(clip, tmp_path / "b.mp4")
    again = look_at_clips([clip, tmp_path / "b.mp4"], tmp_path / "cache")
    assert decoded == [clip] and again == {clip: first, tmp_path / "b.mp4": first}
    digest, info = first
    assert (info.seconds, info.changes, info.notes) == (probe(clip).seconds, probe(clip).changes, ())


@pytest.mark.parametrize("damage", [
    lambda text: text[:40], lambda text: text.replace('"num_frames": 5', '"num_frames": 4'),
    lambda text: "[]", lambda text: "{}", lambda text: json.dumps({"found": {"fps": 8}, "digest": ""})])
def test_damaged_entry_is_made_again(clip, tmp_path, decoded, damage):
    look_at_clips([clip], tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    whole = entry.read_text()
    entry.write_text(damage(whole))
    assert look_at_clips([clip], tmp_path / "cache")[clip][1].num_frames == 5
    assert decoded == [clip, clip] and entry.read_text() == whole


def test_entry_of_another_file_is_not_taken(clip, tmp_path):
    other = write_clip(tmp_path / "b.mp4", num_frames=7, seed=1)
    look_at_clips([clip], tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    look_at_clips([other], tmp_path / "cache")
    (second,) = set((tmp_path / "cache").iterdir()) - {entry}
    shutil.copy(entry, second)
    assert look_at_clips([other], tmp_path / "cache")[other][1].num_frames == 7


def test_file_that_changes_is_looked_at_again(clip, tmp_path, decoded):
    look_at_clips([clip], tmp_path / "cache")
    write_clip(clip, num_frames=6)
    assert look_at_clips([clip], tmp_path / "cache")[clip][1].num_frames == 6 and len(decoded) == 2


def test_cache_that_cannot_be_written_stops_nothing(clip, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert look_at_clips([clip], tmp_path / "cache")[clip][1].num_frames == 5


def test_every_broken_file_is_named_in_order(clip, tmp_path):
    paths = [clip, *(tmp_path / f"{number}.mp4" for number in range(8))]
    for path in paths[1:]:
        path.write_text("no video")
    found = look_at_clips(paths, None)
    assert all(isinstance(found[path], UserError) and str(path) in str(found[path]) for path in paths[1:])
    assert found[clip][1].num_frames == 5


def test_finished_files_are_counted(clip, tmp_path):
    counted = []

    def progress(done, num):
        for job in done:
            counted.append(num)
            yield job
    look_at_clips([clip, write_clip(tmp_path / "b.mp4", 2)], None, progress)
    assert counted == [2, 2]
