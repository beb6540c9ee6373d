"""Prompts: the motion identifier, and file names."""

import pytest

from utils.errors import UserError
from utils.prompts import (
    MAX_SEED,
    Prompt,
    file_name,
    file_names,
    names_motion,
    with_spare_tokens,
    with_token,
)


def test_identifier_becomes_the_placeholder():
    assert with_token("a V* cat and a V*-dog, V*", "sks") == "a sks cat and a sks-dog, sks"


@pytest.mark.parametrize("text, named", [("the V* spin", True), ("the sks spin", True), ("sks-spin", True),
                                         ("asks why", False), ("a cat", False)])
def test_motion_is_named_by_identifier_or_placeholder_as_a_word(text, named):
    assert names_motion(text, "sks") == named


def test_plain_prompt_is_its_own_file_name():
    assert file_name(Prompt(64, "a cat, doing the sks spin")) == "a_cat,_doing_the_sks_spin_seed64.mp4"


AWKWARD = ["a/b", "../../etc/passwd", "..", ".hidden", "-rf", 'say "hi"', "it's", "a\\b", "a:b*c?<d>|e",
           "\U0001f600", "a \U0001f600 cat", "\u732b\u304c\u8e0a\u308b", "x" * 400, "\u732b" * 400,
           "\U0001f600" * 400, "a\nb", "a\tb", "a\x00b", "a_cat", "a cat", "a  cat", "a.", "%s %d"]


@pytest.mark.parametrize("text", AWKWARD)
def test_every_prompt_makes_a_file_that_can_be_written(tmp_path, text):
    path = tmp_path / file_name(Prompt(MAX_SEED, text))
    path.write_bytes(b"video")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert not path.name.startswith((".", "-")) and path.name.endswith(f"_seed{MAX_SEED}.mp4")


def test_no_two_prompts_share_a_file_name():
    names = [file_name(Prompt(0, text)) for text in [*AWKWARD, "x" * 399 + "y"]]
    assert len(set(names)) == len(names)


def test_temporary_name_of_the_longest_file_name_fits_too(tmp_path):
    from utils.files import replacing

    with replacing(tmp_path / file_name(Prompt(MAX_SEED, "\u732b" * 400))) as partial:
        partial.write_bytes(b"video")
    assert len(list(tmp_path.iterdir())) == 1


def test_names_that_differ_only_in_case_are_two_files_on_every_system(tmp_path):
    prompts = [Prompt(1, "A cat"), Prompt(1, "a cat"), Prompt(2, "a cat"), Prompt(1, "a cat")]
    names = file_names(prompts, tmp_path)
    assert list(names.values()) == prompts[:3] and len({name.lower() for name in names}) == 3
    plain, with_digest, other_seed = names
    assert (plain, other_seed) == ("A_cat_seed1.mp4", "a_cat_seed2.mp4") and with_digest != "a_cat_seed1.mp4"
    for name in names:
        (tmp_path / name).touch()
    assert file_names(prompts[::-1], tmp_path) == dict(list(names.items())[::-1])   # the order may change


def test_files_of_earlier_versions_keep_their_names(tmp_path):
    names = ["A_cat_seed1.mp4", "a_cat_seed1.mp4"]
    for name in names:
        (tmp_path / name).touch()
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system has one of them only")
    assert list(file_names([Prompt(1, "A cat"), Prompt(1, "a cat")], tmp_path)) == names


def test_each_motion_has_an_identifier():
    assert with_token("V* and V2*, V1*", "sks,zwx") == "sks and zwx, sks"
    assert with_token("the v* dance and the v2* jump", "sks,zwx") == "the sks dance and the zwx jump"
    assert names_motion("a zwx jump", "sks,zwx") and not names_motion("a zwxy jump", "sks,zwx")
    assert names_motion("a V3* cat", "sks")


@pytest.mark.parametrize("text", ["a V3* cat", "a V0* cat"])
def test_identifier_without_a_motion_is_refused(text):
    with pytest.raises(UserError, match=r"asks for V[03]\*, and the motions are V\* \(sks\), V2\* \(zwx\)"):
        with_token(text, "sks,zwx")


def test_spare_tokens_are_added_only_where_they_lack():
    assert with_spare_tokens("sks", 1) == "sks" and with_spare_tokens("sks", 3) == "sks,zwx,ohwx"
    assert with_spare_tokens("zwx,a", 2) == "zwx,a" and with_spare_tokens("zwx", 2) == "zwx,ohwx"
