"""Lists of prompts: lines of `seed,prompt`, tables, what is a path and what is a prompt."""

import pytest

from tests.conftest import ROOT
from utils.errors import UserError
from utils.prompt_lists import examine_prompts, parse_prompt_line, read_prompts
from utils.prompts import MAX_SEED, MOTION_TOKEN, Prompt

BUNDLED = sorted((ROOT / "data" / "prompts").iterdir())


def read_table(tmp_path, content: str, seed: int = 0) -> list[Prompt]:
    path = tmp_path / "prompts.csv"
    path.write_bytes(content.encode())
    return read_prompts(str(path), seed)


def read_file(tmp_path, content: str | bytes, seed: int | None = 0) -> list[Prompt]:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(str(path), seed)


def test_each_line_keeps_its_own_seed(tmp_path):
    assert read_file(tmp_path, "3,a cat\n1,a dog\n2,a cat\n") == [Prompt(3, "a cat"), Prompt(1, "a dog"),
                                                                  Prompt(2, "a cat")]


@pytest.mark.parametrize("header", ["caption", "id,caption", "id;caption", "Text\tnegative", "prompts"])
def test_header_without_the_names_of_the_columns_is_no_prompt(tmp_path, header):
    with pytest.raises(UserError, match="line 1: the header has no column prompt. Name the columns"):
        read_table(tmp_path, f"{header}\n1,a cat\n")


def test_table_says_which_columns_it_does_not_read_and_which_rows_end_in_a_number(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("seed,prompt,negative_prompt,note\n3,a cat,blurry,good\n")
    prompts, notes = examine_prompts(str(path), 0)
    assert prompts == [Prompt(3, "a cat")]
    assert notes[1:] == [f"{path}: the columns seed and prompt are read, and not negative_prompt, note"]
    path.write_text("a cat,7\na man, dancing\na crowd of 5\n")
    prompts, notes = examine_prompts(str(path), 0)
    assert [prompt.text for prompt in prompts] == ["a cat,7", "a man, dancing", "a crowd of 5"]
    assert len(notes) == 2 and f"{path}, line 1: the number at the end is part of the prompt" in notes[1]


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
    with pytest.raises(UserError, match=r"nowhere.txt: cannot be read \(no such file"):
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


@pytest.mark.parametrize("line, seed, text", [
    ("5,000 paper cranes", None, "5,000 paper cranes"), ("10,000,000 stars", None, "10,000,000 stars"),
    ("5,101", None, "5,101"), ("5, 101 dalmatians", 5, "101 dalmatians"), ("1234,101 cats", 1234, "101 cats"),
    ("5,1980s disco", 5, "1980s disco"), ("5,3D cat", 5, "3D cat"), ('5,"101 cats"', 5, "101 cats"),
    ('5,"a cat, sleeping"', 5, "a cat, sleeping"), ('"5","a ""big"" cat"', 5, 'a "big" cat'),
    ('"a cat, sleeping"', None, "a cat, sleeping"), ('5,"one" and "two"', 5, '"one" and "two"'),
    ('5,say "hi"', 5, 'say "hi"'),
])
def test_seed_and_prompt_of_a_line(line, seed, text):
    assert parse_prompt_line(line) == (seed, text)


def test_line_that_can_be_read_in_two_ways_is_said(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("1,a cat\n5,101 dalmatians\n")
    prompts, notes = examine_prompts(str(path), 7)
    assert prompts == [Prompt(1, "a cat"), Prompt(7, "5,101 dalmatians")]
    assert notes[0] == f"2 prompts from {path}, 1 with a seed of its own"
    assert "line 2" in notes[1] and "`5, 101 dalmatians`" in notes[1]


@pytest.mark.parametrize("content", [
    '5,"a cat, sleeping"\n6,"a ""big"" dog"\n,a man\n',
    'seed,prompt\n5,"a cat, sleeping"\n6,"a ""big"" dog"\n,a man',
    'Prompt,Seed,note\r\n"a cat, sleeping",5,x\r\n"a ""big"" dog",6,\r\na man,,y\r\n',
    '\ufeff5;a cat, sleeping\n6;"a ""big"" dog"\n;a man\n',
    "seed\tprompt\n5\ta cat, sleeping\n6\ta \"big\" dog\n\ta man\n",
    '# cats\n5,a cat, sleeping\n\n6,"a\n""big""\ndog"\na man\n',
])
def test_tables_of_every_spreadsheet_are_read(tmp_path, content):
    assert read_table(tmp_path, content, seed=9) == [
        Prompt(5, "a cat, sleeping"), Prompt(6, 'a "big" dog'), Prompt(9, "a man")]


def test_table_of_prompts_alone_is_read(tmp_path):
    assert read_table(tmp_path, 'prompt\na cat\n"a dog, running"\n', 3) == [
        Prompt(3, "a cat"), Prompt(3, "a dog, running")]
    assert read_table(tmp_path, 'a cat\na man, walking\n"5,000 cranes"\n', 3) == [
        Prompt(3, "a cat"), Prompt(3, "a man, walking"), Prompt(3, "5,000 cranes")]


@pytest.mark.parametrize("content, words", [
    ("1.5,a cat\n", "line 1: '1.5' is not a whole number"), ("5,\n", "line 1: the seed 5 has no prompt"),
    ("seed,prompt\nx,a cat\n", "line 2: the seed 'x' is not a whole number"),
    ("seed,prompt\n", "holds no prompts"), ("1,a\0cat\n", "has control characters"),
])
def test_wrong_row_of_a_table_is_named(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        read_table(tmp_path, content)


@pytest.mark.parametrize("content, prompts", [
    ("seed,prompt\n7,a cat, sleeping on a sofa\n", [Prompt(7, "a cat, sleeping on a sofa")]),
    ("seed,prompt\n7,5,000 cranes,, \n", [Prompt(7, "5,000 cranes")]),
    ("seed;prompt\n7;a cat; sleeping\n", [Prompt(7, "a cat; sleeping")]),
    ("id,seed,prompt\n\"1,5\",7,a \"cat\", sleeping\n", [Prompt(7, 'a "cat", sleeping')]),
    ("prompt\na cat, sleeping\n", [Prompt(9, "a cat, sleeping")]),
    ("seed,prompt,,\n7,a cat,,\n", [Prompt(7, "a cat")]),
    ("7,a cat,sleeping\n", [Prompt(7, "a cat,sleeping")]),
])
def test_prompt_keeps_what_follows_a_comma_without_quotes(tmp_path, content, prompts):
    assert read_table(tmp_path, content, 9) == prompts


@pytest.mark.parametrize("content", [
    'seed, prompt\n7, "a cat, sleeping"\n', '7, "a cat, sleeping"\n', "id;prompt;seed\n1;a cat, sleeping;7\n",
    "name\tprompt\tseed\nx\ta cat, sleeping\t7\n", "# cats\n7;a cat, sleeping\n",
])
def test_separator_is_found_in_the_whole_first_line(tmp_path, content):
    assert read_table(tmp_path, content, 9) == [Prompt(7, "a cat, sleeping")]


@pytest.mark.parametrize("content, words", [
    ("prompt,seed\n\na cat, sleeping,7\n", "line 3: has 3 cells, the header 2. Put quotes around the prompt"),
    ("seed,text\n7,a cat\n", "line 1: the header has no column prompt"),
    ("prompt;seed;prompt\na;7;b\n", "line 1: the header has 2 columns prompt"),
    ("seed,prompt,seed\n7,a,8\n", "line 1: the header has 2 columns seed"),
])
def test_wrong_header_of_a_table_is_named(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        read_table(tmp_path, content)


@pytest.mark.parametrize("line", ["seed,prompt", '"Seed"; "Prompt"', "prompt\tseed"])
def test_header_in_a_text_file_is_no_prompt(tmp_path, line):
    with pytest.raises(UserError, match="line 1: it is the header of a table"):
        read_file(tmp_path, f"{line}\n7,a cat\n")
    assert read_file(tmp_path, "seed, growing into a tree") == [Prompt(0, "seed, growing into a tree")]


def test_path_without_its_suffix_is_the_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "robots.txt").write_text("4,a robot\n")
    (tmp_path / "cats.csv").write_text("4,a cat\n")
    for given, text in (("lists/robots", "a robot"), (f"{tmp_path}/cats", "a cat"), ("cats", "a cat")):
        assert read_prompts(given) == [Prompt(4, text)]
    assert read_prompts("two cats", 1) == [Prompt(1, "two cats")]


@pytest.mark.parametrize("given, words", [
    ("lists/robot", "Did you mean lists/robots.txt"), ("lists/robot.csv", "Did you mean lists/robots.txt"),
    ("lists", None), ("lists/", "is not a list of prompts"), ("picture.png", "is not a list of prompts"),
    ("nowhere/x", "there is no such file"), ("a cat/dog", None), ("a/b|c", None), ("robots", None),
])
def test_path_that_is_no_list_is_refused_with_the_nearest(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "robots.txt").write_text("4,a robot\n")
    (tmp_path / "picture.png").touch()
    if words is None:
        assert read_prompts(given, 1)[0].seed == 1
    else:
        with pytest.raises(UserError, match=words):
            read_prompts(given)


def test_number_before_a_comma_of_a_typed_prompt_is_no_seed_and_said():
    prompts, notes = examine_prompts("1,a cat|5,000 cranes", 3)
    assert prompts == [Prompt(3, "1,a cat"), Prompt(3, "5,000 cranes")]
    assert len(notes) == 1 and "'1,a cat': the number is part of the prompt" in notes[0]


@pytest.mark.parametrize("line", ["1\ta cat", "1;a cat", '"1"; a  cat'])
def test_seed_with_another_separator_is_refused(tmp_path, line):
    with pytest.raises(UserError, match="line 1: a seed has a comma behind it. Write `1,a cat`"):
        read_file(tmp_path, f"{line}\n2,a dog\n")
    assert read_file(tmp_path, "1 robot; a cat\n") == [Prompt(0, "1 robot; a cat")]


def test_separator_that_excel_is_told_is_no_prompt(tmp_path):
    for content in ("sep=;\n1;a cat\n2;a dog, running\n",
                    "sep=;\r\nseed;prompt\r\n1;a cat\r\n2;a dog, running\r\n"):
        assert read_table(tmp_path, content) == [Prompt(1, "a cat"), Prompt(2, "a dog, running")]


def test_quote_that_nothing_closes_is_named(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('seed,prompt\n1,a cat\n2,"a dog running\n3,a bird\n4,a horse\n')
    with pytest.raises(UserError, match="list.csv, line 3: has a quote that nothing closes"):
        examine_prompts(str(path))
    path.write_text('seed,prompt\n1,a cat\n2,"a dog\nrunning"\n3,a 12" robot\n')
    prompts, _ = examine_prompts(str(path))
    assert [prompt.text for prompt in prompts] == ["a cat", "a dog running", 'a 12" robot']


def lines_of(path) -> list[tuple[int | None, str]]:
    return [parse_prompt_line(line) for line in path.read_text(encoding="utf-8").splitlines()
            if not line.startswith("#")]


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_bundled_list_has_seeds_and_names_the_motion(path):
    lines = lines_of(path)
    # which also finds no repetition
    assert examine_prompts(str(path))[0] == [Prompt(*line) for line in lines]
    names_motion = {MOTION_TOKEN in text for _, text in lines}
    # the list of the demo ends with everyday prompts
    expected = {"everyday": {False}, "puppet_dance": {True, False}}.get(path.stem, {True})
    assert names_motion == expected


def test_no_prompt_is_in_two_bundled_lists_with_one_seed():
    lines = [line for path in BUNDLED for line in lines_of(path)]
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("document", ["README.md", "docs/results.md"])
def test_every_bundled_list_is_described(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    assert [path.name for path in BUNDLED if f"`{path.name}`" not in text] == []
