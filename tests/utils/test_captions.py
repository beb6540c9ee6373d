"""Captions: where they come from, in which order, and what is said of those that cannot be used."""

import json
import unicodedata

import pytest

from utils.captions import CaptionIndex, add_captions, captions_of, read_caption_index
from utils.errors import UserError


def write_index(folder, content: str | bytes | dict) -> CaptionIndex:
    content = json.dumps(content) if isinstance(content, dict) else content
    (folder / "text.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_caption_index(folder)


def test_text_beside_the_clip_comes_first(tmp_path):
    (tmp_path / "spin.txt").write_text("from the text")
    index = write_index(tmp_path, {"spin.mp4": "from the index"})
    assert captions_of(tmp_path / "spin.mp4", index, ("fallback",)) == ("from the text",)


def test_index_comes_before_the_fallback(tmp_path):
    index = write_index(tmp_path, {"spin.mp4": "from the index"})
    assert captions_of(tmp_path / "spin.mp4", index, ("fallback",)) == ("from the index",)


def test_fallback_serves_clips_without_any(tmp_path):
    index = write_index(tmp_path, {"spin.mp4": "from the index"})
    assert captions_of(tmp_path / "other.mp4", index, ("one", "another")) == ("one", "another")


def test_index_may_leave_out_the_suffix(tmp_path):
    index = write_index(tmp_path, {"spin": "a spin"})
    assert captions_of(tmp_path / "spin.mp4", index, ()) == ("a spin",)


def test_index_may_list_several_captions(tmp_path):
    index = write_index(tmp_path, {"spin.mp4": ["one", "another"]})
    assert captions_of(tmp_path / "spin.mp4", index, ()) == ("one", "another")


@pytest.mark.parametrize("content", [b"a cat\n", b"a cat\r\n", b"\xef\xbb\xbfa cat", b"  a\n cat \n\n",
                                     b"a\tcat"])
def test_caption_is_one_line_without_what_editors_leave(tmp_path, content):
    (tmp_path / "spin.txt").write_bytes(content)
    assert captions_of(tmp_path / "spin.mp4", read_caption_index(tmp_path), ()) == ("a cat",)


def test_index_with_byte_order_mark_and_crlf_is_read(tmp_path):
    index = write_index(tmp_path, b'\xef\xbb\xbf{"spin.mp4":\r\n "a \xe7\x8c\xab"}\r\n')
    assert index.captions == {"spin.mp4": ("a \u732b",)}


@pytest.mark.parametrize("text", ["IMG_0042.TXT", "img_0042.txt", "IMG_0042.MOV.txt", "img_0042.mov.TXT"])
def test_letter_case_does_not_matter_and_the_suffix_may_stay(tmp_path, text):
    (tmp_path / text).write_text("a cat")
    assert captions_of(tmp_path / "IMG_0042.MOV", read_caption_index(tmp_path), ("fallback",)) == ("a cat",)


def test_own_case_and_whole_name_come_first(tmp_path):
    for name in ("a.txt", "A.txt", "a.mp4.txt"):
        (tmp_path / name).write_text(name)
    index = read_caption_index(tmp_path)
    assert captions_of(tmp_path / "a.mp4", index, ()) == ("a.mp4.txt",)
    assert captions_of(tmp_path / "A.mov", index, ()) == ("A.txt",)
    assert captions_of(tmp_path / "a.mov", index, ()) == ("a.txt",)


def test_clip_takes_no_caption_of_one_that_differs_in_letter_case(tmp_path):
    for name in ("img_1.mp4", "IMG_1.mp4", "img_2.mp4", "IMG_2.MP4"):
        (tmp_path / name).touch()
    (tmp_path / "img_1.txt").write_text("a cat")
    (tmp_path / "IMG_2.MP4.TXT").write_text("a dog")
    index = write_index(tmp_path, {"IMG_1": "a cow"})
    assert captions_of(tmp_path / "img_1.mp4", index, ()) == ("a cat",)
    assert captions_of(tmp_path / "IMG_1.mp4", index, ()) == ("a cow",)
    assert captions_of(tmp_path / "IMG_2.MP4", index, ()) == ("a dog",)
    assert captions_of(tmp_path / "img_2.mp4", index, ("fallback",)) == ("fallback",)


@pytest.mark.parametrize("clip, other", [("NFC", "NFD"), ("NFD", "NFC")])
def test_it_does_not_matter_how_accents_are_stored(tmp_path, clip, other):
    clips = [tmp_path / unicodedata.normalize(clip, name) for name in ("danse à deux.mp4", "été.mp4")]
    for path in clips:
        path.touch()
    (tmp_path / unicodedata.normalize(other, "Été.txt")).write_text("a cat")
    index = write_index(tmp_path, {unicodedata.normalize(other, "danse à deux.mp4"): "a dog"})
    assert [captions_of(path, index, ()) for path in clips] == [("a dog",), ("a cat",)]


def test_letter_case_does_not_matter_in_the_index(tmp_path):
    (tmp_path / "TEXT.JSON").write_text('{"img_0042.mov": "a cat"}')
    assert captions_of(tmp_path / "IMG_0042.MOV", read_caption_index(tmp_path), ()) == ("a cat",)
    add_captions(tmp_path, {"b.mp4": "a dog"})
    assert [path.name for path in tmp_path.iterdir()] == ["TEXT.JSON"]


def test_clip_with_the_longest_name_has_a_caption(tmp_path):
    """Its name and .txt together are longer than any file name."""
    clip = tmp_path / ("a" * 251 + ".mp4")
    assert captions_of(clip, read_caption_index(tmp_path), ("fallback",)) == ("fallback",)


@pytest.mark.parametrize("letter", ["\0", "\x1b", "\x7f"])
def test_control_characters_in_a_caption_are_refused_in_one_line(tmp_path, letter):
    (tmp_path / "spin.txt").write_text(f"a{letter}cat")
    with pytest.raises(UserError) as caught:
        captions_of(tmp_path / "spin.mp4", read_caption_index(tmp_path), ())
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / 'spin.txt'}: the caption has control characters") and \
        problem.isprintable()
    with pytest.raises(UserError, match="text.json: the caption of 'spin.mp4' has control characters"):
        write_index(tmp_path, {"spin.mp4": f"a{letter}cat"})


def test_dots_in_a_clip_name_are_part_of_the_name(tmp_path):
    (tmp_path / "v1.2.txt").write_text("a cat")
    assert captions_of(tmp_path / "v1.2.mp4", read_caption_index(tmp_path), ()) == ("a cat",)


@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff"])
def test_empty_caption_file_is_named(tmp_path, content):
    (tmp_path / "spin.txt").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="spin.txt: is empty. "
                                        "Write the caption of spin.mp4 into it, or remove it."):
        captions_of(tmp_path / "spin.mp4", read_caption_index(tmp_path), ("fallback",))


def test_caption_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "spin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(UserError, match="spin.txt: is not UTF-8 text. Save it as UTF-8."):
        captions_of(tmp_path / "spin.mp4", read_caption_index(tmp_path), ())


def test_caption_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "spin.txt").mkdir()
    with pytest.raises(UserError, match=r"spin.txt: cannot be read \(Is a directory\)"):
        captions_of(tmp_path / "spin.mp4", read_caption_index(tmp_path), ())


def test_clip_without_a_caption_is_told_where_to_put_one(tmp_path):
    with pytest.raises(UserError, match="spin.mp4: it has no caption. "
                                        "Write spin.txt beside it, or set train_data.fallback_prompt."):
        captions_of(tmp_path / "spin.mp4", read_caption_index(tmp_path), ())


def test_clip_missing_from_the_index_is_named(tmp_path):
    index = write_index(tmp_path, {"other.mp4": "a cat"})
    with pytest.raises(UserError, match="spin.mp4: text.json has no entry for it. Write spin.txt beside it"):
        captions_of(tmp_path / "spin.mp4", index, ())


@pytest.mark.parametrize("content", ['{"spin.mp4": ', "", "spin.mp4: a cat"])
def test_index_that_is_not_json_is_named(tmp_path, content):
    with pytest.raises(UserError, match="text.json: is not JSON"):
        write_index(tmp_path, content)


@pytest.mark.parametrize("content", ["[]", '"a cat"', "3", "null"])
def test_index_that_is_no_object_is_named(tmp_path, content):
    with pytest.raises(UserError, match="text.json: is not a JSON object. It should be like"):
        write_index(tmp_path, content)


def test_index_that_is_not_utf8_is_named(tmp_path):
    with pytest.raises(UserError, match="text.json: is not UTF-8 text"):
        write_index(tmp_path, '{"spin.mp4": "caf\u00e9"}'.encode("latin-1"))


def test_every_entry_that_is_no_caption_is_named(tmp_path):
    entries = {"a.mp4": "", "b.mp4": 3, "c.mp4": [], "d.mp4": ["a cat", " "], "e.mp4": None, "f.mp4": "a cat"}
    with pytest.raises(UserError) as caught:
        write_index(tmp_path, entries)
    named = [problem.split("'")[1] for problem in caught.value.problems]
    assert named == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"]


def test_added_captions_join_those_that_are_there(tmp_path):
    write_index(tmp_path, {"b.mp4": ["one", "another"], "a.mp4": "old"})
    add_captions(tmp_path, {"a.mp4": "new", "c.mp4": "a \u732b \"quoted\""})
    assert json.loads((tmp_path / "text.json").read_text(encoding="utf-8")) == {
        "a.mp4": "new", "b.mp4": ["one", "another"], "c.mp4": "a \u732b \"quoted\""}
