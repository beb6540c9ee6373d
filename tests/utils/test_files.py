"""Files are whole or absent, and what stood there before survives whatever goes wrong."""

import errno
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from utils.errors import UserError
from utils.files import (
    check_writable,
    digest_of,
    file_digest,
    format_bytes,
    free_bytes,
    remove_stale,
    replacing,
    replacing_folder,
    write_json,
)
from utils.tensor_files import (
    read_metadata,
    read_rows,
    read_shapes,
    read_tensors,
    write_tensors,
)


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127 + "a", "舞" * 85, "🕺" * 60 + ".safetensors"],
                         ids=["letters", "accents", "chinese", "emoji"])
def test_longest_names_can_be_replaced(tmp_path, name):
    """A file system counts bytes, and the temporary name is no longer than it takes."""
    for _ in range(2):
        with replacing(tmp_path / "files" / name) as partial:
            partial.write_text("whole")
        with replacing_folder(tmp_path / "folders" / name) as partial:
            (partial / "a.txt").write_text("whole")
    assert os.listdir(tmp_path / "files") == os.listdir(tmp_path / "folders") == [name]


def test_file_appears_under_its_name_only_when_done(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as partial:
        partial.write_text("whole")
        assert not path.exists() and partial.suffix == ".txt"
    assert path.read_text() == "whole" and os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("mistake", [RuntimeError("x"), KeyboardInterrupt()])
def test_file_survives_a_failure_while_its_successor_is_written(tmp_path, mistake):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(type(mistake)), replacing(path) as partial:
        partial.write_text("after")
        raise mistake
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


def test_full_disk_names_file_and_space_and_keeps_the_previous(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(UserError) as caught, replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # the unit: the number may change while the test runs
    free = format_bytes(free_bytes(tmp_path)).split()[1]
    assert str(caught.value).startswith(f"{path}: could not be written (No space left on device).")
    assert f"{free} are free there." in str(caught.value)
    assert path.read_text() == "before"


def test_write_that_the_system_refuses_keeps_the_previous_json(tmp_path, full_disk):
    write_json(tmp_path / "a.json", ["before"])
    with full_disk(), pytest.raises(UserError, match=r"a.json: could not be written \(File too large\)"):
        write_json(tmp_path / "a.json", ["after" * 2000])
    assert json.loads((tmp_path / "a.json").read_text()) == ["before"] and os.listdir(tmp_path) == ["a.json"]


def test_write_that_the_system_refuses_keeps_the_previous_tensors(tmp_path, full_disk):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.ones(2)})
    with full_disk(), pytest.raises(UserError, match="a.safetensors: could not be written .* are free there"):
        write_tensors(path, {"a": torch.zeros(100_000)})
    assert torch.equal(read_tensors(path)["a"], torch.ones(2)) and os.listdir(tmp_path) == ["a.safetensors"]


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/sub/a.txt: could not be written \(Not a directory\)"):
        with replacing(tmp_path / "file" / "sub" / "a.txt") as partial:
            partial.write_text("")


def test_folder_is_replaced_whole(tmp_path):
    for content in ("before", "after"):
        with replacing_folder(tmp_path / "save") as partial:
            (partial / content).write_text(content)
    assert os.listdir(tmp_path / "save") == ["after"] and os.listdir(tmp_path) == ["save"]


def test_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "to nowhere").symlink_to("new")
    for name in ("link", "to nowhere"):
        with replacing_folder(tmp_path / name) as partial:
            (partial / "a").touch()
        assert (tmp_path / name).is_symlink() and (tmp_path / name / "a").exists()
    assert sorted(os.listdir(tmp_path)) == ["link", "new", "real", "to nowhere"]


def test_folder_survives_a_full_disk(tmp_path, full_disk):
    with replacing_folder(tmp_path / "save") as partial:
        (partial / "a").write_text("before")
    with full_disk(), pytest.raises(UserError, match=r"save: could not be written \(File too large\)"):
        with replacing_folder(tmp_path / "save") as partial:
            (partial / "a").write_bytes(bytes(10_000))
    assert (tmp_path / "save" / "a").read_text() == "before" and os.listdir(tmp_path) == ["save"]


def test_replaced_folder_is_never_half_deleted(tmp_path, monkeypatch):
    from utils import files

    with replacing_folder(tmp_path / "save") as partial:
        (partial / "a").write_text("before")
    at_deletion = []
    delete = files.shutil.rmtree
    monkeypatch.setattr(files.shutil, "rmtree", lambda folder, **how: (
        at_deletion.append((tmp_path / "save" / "a").read_text()), delete(folder, **how)))
    with replacing_folder(tmp_path / "save") as partial:
        (partial / "a").write_text("after")
    # a kill during any deletion finds the new folder in place
    assert at_deletion and set(at_deletion) == {"after"}


def test_folder_is_as_readable_as_others(tmp_path):
    with replacing_folder(tmp_path / "save"):
        pass
    assert (tmp_path / "save").stat().st_mode & 0o777 == 0o755


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    assert check_writable(tmp_path / "file" / "results") == [
        f"{tmp_path / 'file' / 'results'}: cannot be written (Not a directory). Choose another folder."]


def test_asking_whether_a_folder_can_be_written_leaves_nothing(tmp_path):
    assert check_writable(tmp_path / "a" / "b") == [] and check_writable(tmp_path) == []
    assert os.listdir(tmp_path) == []


def test_what_a_kill_left_long_ago_is_removed_and_nothing_else(tmp_path):
    old, young, whole = tmp_path / ".a.7.partial.mp4", tmp_path / ".b.8.partial.mp4", tmp_path / "c.mp4"
    for path in (old, young, whole):
        path.touch()
    for path in (old, whole):
        os.utime(path, (0, 0))
    remove_stale(tmp_path)
    remove_stale(tmp_path / "nowhere")
    assert sorted(tmp_path.iterdir()) == [young, whole]


@pytest.mark.parametrize("num_bytes, text", [(0, "0 bytes"), (999, "999 bytes"), (3_400_000, "3.4 MB"),
                                             (1_141_000_000, "1.14 GB"), (2e12, "2 TB")])
def test_sizes_are_written_for_people(num_bytes, text):
    assert format_bytes(num_bytes) == text


def test_digest_is_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"clip")
    (tmp_path / "b").write_bytes(b"clip")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"clop")
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1, "b": [3]})


def test_tensors_and_metadata_come_back(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.arange(6).reshape(3, 2).T, "b": torch.ones(2, 1, dtype=torch.float16)}
    write_tensors(path, tensors, {"who": "\u732b"})
    back = read_tensors(path)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors) and set(back) == set(tensors)
    assert read_metadata(path) == {"who": "\u732b"}
    assert read_shapes(path) == {"a": ((2, 3), "I64"), "b": ((2, 1), "F16")}


def test_tensor_file_is_laid_out_as_the_library_lays_it_out(tmp_path):
    tensors = {"b": torch.arange(3, dtype=torch.uint8), "a": torch.randn(2, 3).half(), "c": torch.tensor(1.5),
               "empty": torch.zeros(0, 4), "d": torch.randn(5).bfloat16(), "e": torch.tensor([True, False])}
    write_tensors(tmp_path / "ours", tensors, {"who": "us"})
    save_file(tensors, tmp_path / "theirs", {"who": "us"})
    (ours, our_values), (theirs, their_values) = (
        header_and_values((tmp_path / name).read_bytes()) for name in ("ours", "theirs"))
    digest = ours["__metadata__"].pop("digest")
    assert ours.pop("__metadata__") == theirs.pop("__metadata__") and len(digest) == 64
    for name, entry in theirs.items():
        start, end = ours[name].pop("data_offsets")
        their_start, their_end = entry.pop("data_offsets")
        assert ours.pop(name) == entry and our_values[start:end] == their_values[their_start:their_end]
        assert start % tensors[name].itemsize == 0   # else the library could not map it
    assert not ours and len(our_values) == len(their_values)


def header_and_values(content: bytes) -> tuple[dict, bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def test_tensors_are_converted_as_they_are_written(tmp_path):
    tensors = {"a": torch.randn(3, 2), "b": torch.randn(4).double()}
    halved = {name: tensor.half() for name, tensor in tensors.items()}
    digest = write_tensors(tmp_path / "a", tensors, {"x": "y"}, torch.float16)
    assert digest == write_tensors(tmp_path / "b", halved, {"x": "y"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_shapes(tmp_path / "a") == {"a": ((3, 2), "F16"), "b": ((4,), "F16")}


def test_rows_are_those_rows_of_every_tensor(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.arange(10), "b": torch.arange(20).reshape(10, 2)})
    rows = read_rows(path, 3, 5)
    assert rows["a"].tolist() == [3, 4] and rows["b"].tolist() == [[6, 7], [8, 9]]


def test_json_keeps_names_that_are_not_utf8(tmp_path):
    content = {"caf\udce9 日本.mp4": "caf\ud800"}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content and "日本" in text


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 100])
def test_damaged_tensor_file_is_named(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="a.safetensors: cannot be read"):
        read_tensors(tmp_path / "a.safetensors")


def test_truncated_tensor_file_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="a.safetensors: cannot be read"):
        read_shapes(path)
