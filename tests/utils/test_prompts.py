"""Prompts: lists of `seed,prompt` lines, the motion identifier, and file names."""

import pytest

from utils.errors import UserError
from utils.prompts import (
    MAX_SEED,
    Prompt,
    file_name,
    names_motion,
    parse_prompt_line,
    read_prompts,
    with_token,
)


def read_file(tmp_path, content: str | bytes, seed: int | None = 0) -> list[Prompt]:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(str(path), seed)


def test_each_line_keeps_its_own_seed(tmp_path):
    assert read_file(tmp_path, "3,a cat\n1,a dog\n2,a cat\n") == [Prompt(3, "a cat"), Prompt(1, "a dog"),
                                                                  Prompt(2, "a cat")]


def test_only_the_first_comma_splits(tmp_path):
    assert read_file(tmp_path, "64,a cat, a dog, two mice\n") == [Prompt(64, "a cat, a dog, two mice")]


def test_missing_last_newline_costs_no_letter(tmp_path):
    assert read_file(tmp_path, "1,a cat\n2,a dog") == read_file(tmp_path, "1,a cat\n2,a dog\n")


def test_blank_lines_and_comments_are_skipped(tmp_path):
    assert read_file(tmp_path, "# list\n\n  \n1,a cat\n  # more\n") == [Prompt(1, "a cat")]


@pytest.mark.parametrize("newline", ["\r\n", "\r", "\n"])
def test_line_ends_of_every_system_are_read(tmp_path, newline):
    assert read_file(tmp_path, f"1,a cat{newline}2,a dog{newline}") == [
        Prompt(1, "a cat"), Prompt(2, "a dog")]


def test_byte_order_mark_is_no_part_of_the_first_seed(tmp_path):
    assert read_file(tmp_path, b"\xef\xbb\xbf7,a cat") == [Prompt(7, "a cat")]


def test_line_without_a_seed_takes_the_given_one(tmp_path):
    assert read_file(tmp_path, "a cat\na man, dancing\n5,a dog", seed=9) == [
        Prompt(9, "a cat"), Prompt(9, "a man, dancing"), Prompt(5, "a dog")]


def test_line_with_an_empty_seed_takes_the_given_one(tmp_path):
    assert read_file(tmp_path, ",a cat", seed=9) == [Prompt(9, "a cat")]


@pytest.mark.parametrize("line", ["2 dogs, one cat", "3D, a robot", "1980s, a disco", "V*, slowly"])
def test_prompt_that_begins_with_a_digit_is_a_prompt(line):
    assert parse_prompt_line(line) == (None, line)


@pytest.mark.parametrize("head", ["1.5", "-3", "+4", "1e3", "1_000", ".5"])
def test_seed_that_is_no_whole_number_is_refused(tmp_path, head):
    with pytest.raises(UserError) as caught:
        read_file(tmp_path, f"1,a dog\n{head},a cat")
    assert f"prompts.txt, line 2: {head!r} is not a whole number of 0 or above" in str(caught.value)


def test_seed_too_large_for_the_generator_is_refused(tmp_path):
    with pytest.raises(UserError, match=f"line 1: the seed {MAX_SEED + 1} is above {MAX_SEED}"):
        read_file(tmp_path, f"{MAX_SEED + 1},a cat")


def test_seed_without_a_prompt_is_refused(tmp_path):
    with pytest.raises(UserError, match="line 1: the seed 64 has no prompt behind it"):
        read_file(tmp_path, "64,  ")


def test_every_wrong_line_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        read_file(tmp_path, "1.5,a\n2,b\n-1,c\n")
    named = [problem.split(":")[0].rpartition(", ")[2] for problem in caught.value.problems]
    assert named == ["line 1", "line 3"]


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing\n", "\ufeff"])
def test_empty_prompt_file_is_named(tmp_path, content):
    with pytest.raises(UserError, match="prompts.txt: holds no prompts. Write one `seed,prompt` per line."):
        read_file(tmp_path, content)


def test_prompt_file_that_is_not_utf8_is_named(tmp_path):
    with pytest.raises(UserError, match="prompts.txt: is not UTF-8 text"):
        read_file(tmp_path, "1,caf\u00e9".encode("latin-1"))


def test_missing_prompt_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.txt: cannot be read \(No such file"):
        read_prompts(str(tmp_path / "nowhere.txt"))


def test_several_prompts_are_joined_by_bars():
    assert read_prompts("a cat | a dog, running|", 3) == [Prompt(3, "a cat"), Prompt(3, "a dog, running")]


@pytest.mark.parametrize("given", ["", "  ", "|", " | "])
def test_empty_prompt_is_refused(given):
    with pytest.raises(UserError, match="The prompt is empty"):
        read_prompts(given)


def test_prompt_that_is_not_text_is_refused():
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_prompts(b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_random_seeds_differ():
    assert len({prompt.seed for prompt in read_prompts("a|b|c|d", seed=None)}) == 4


def test_prompt_given_twice_with_one_seed_is_rendered_once(tmp_path):
    assert read_file(tmp_path, "1,a cat\n1,a cat\n2,a cat") == [Prompt(1, "a cat"), Prompt(2, "a cat")]


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
