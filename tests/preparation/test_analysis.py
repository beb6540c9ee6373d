"""What is measured of a file: decoded once if it is sound, refused as everywhere if it is not."""

import pytest

from preparation.analysis import analyse
from tests.preparation.films import film, scene
from utils.errors import UserError
from utils.video import probe


def test_sound_file_is_decoded_once(tmp_path, monkeypatch):
    path = film(tmp_path / "film.mp4", scene(40, 1))
    whole = probe(path)
    monkeypatch.setattr("preparation.analysis.probe", None)
    for _ in range(2):   # measured, and taken from the cache
        assert analyse(path, tmp_path / "cache").info == whole


def test_file_that_breaks_off_is_refused_as_by_probe(tmp_path):
    path = film(tmp_path / "film.mp4", scene(60, 1))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle:middle + 3000] = bytes(range(250)) * 12
    path.write_bytes(content)
    with pytest.raises(UserError) as by_probe:
        probe(path)
    with pytest.raises(UserError) as refused:
        analyse(path, tmp_path / "cache")
    assert refused.value.problems == by_probe.value.problems and list(tmp_path.glob("cache/*.npz")) == []


def test_damage_is_said_and_the_file_still_used(tmp_path):
    path = film(tmp_path / "film.mp4", scene(60, 1))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    for _ in range(2):
        found = analyse(path, tmp_path / "cache")
        assert found.damage and found.num_frames == 60 and found.info.changes == probe(path).changes != ()
