"""Tables of who moves: which of them count for a file, and which rows are wrong."""

import unicodedata

import pytest

from preparation.subjects import find_tables, read_subjects
from prepare_clips import table_subjects
from utils.errors import UserError


@pytest.fixture
def phone(tmp_path):
    """Two folders with files of the same names, and one file above them."""
    for name in ("A/one.mov", "A/two.mov", "B/one.mov", "top.mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def table(folder, *rows):
    path = folder / "subjects.csv"
    path.write_text("\n".join(("file,subject", *rows)))
    return path


def said(inputs, footage, given=None):
    problems = []
    return table_subjects(inputs, footage, given, problems), problems


def test_each_table_counts_for_the_files_below_its_folder(phone):
    table(phone / "A", "one,a man")
    table(phone / "B", "one.mov,a dog")
    footage = [phone / name for name in ("A/one.mov", "A/two.mov", "B/one.mov")]
    for inputs in ([phone], [phone / "A", phone / "B"], footage):
        assert said(inputs, footage) == ({footage[0]: "a man", footage[2]: "a dog"}, [])


def test_nearest_table_wins(phone):
    table(phone, "one,a cat", "A/two.mov,a bird", "top,a cow")
    table(phone / "A", "one,a man", "two,a fox")
    footage = [phone / name for name in ("A/one.mov", "A/two.mov", "B/one.mov", "top.mov")]
    assert said([phone], footage) == (dict(zip(footage, ("a man", "a fox", "a cat", "a cow"))), [])


def test_rows_of_files_that_were_not_named_are_ignored_in_a_table_that_was_found(phone):
    path = table(phone, "top.mov,a cow", "A/one.mov,a man", "two,a fox", "./B/one.mov,a dog", "onne,a cat")
    (footage,) = inputs = [phone / "top.mov"]
    assert said(inputs, inputs) == ({}, [f"{path}, line 6: onne is not among the footage."])
    path.write_text(path.read_text().replace("onne", "one"))
    assert said(inputs, inputs) == ({footage: "a cow"}, [])
    assert [problem.split(":")[0] for problem in said(inputs, inputs, path)[1]] == [
        f"{path}, line {number}" for number in (3, 4, 5, 6)]


@pytest.mark.parametrize("stored, written", [("NFC", "NFD"), ("NFD", "NFC")])
def test_it_does_not_matter_how_accents_are_stored(tmp_path, stored, written):
    names = ["été.mov", "à deux.mov", "ou\u0300.mov"]
    footage = [tmp_path / unicodedata.normalize(stored, name) for name in names]
    for path in footage:
        path.touch()
    rows = ("été,a man", "à deux.mov,a dog", "./où.mov,a cat")
    path = table(tmp_path, *(unicodedata.normalize(written, row) for row in rows))
    assert said([tmp_path], footage) == (dict(zip(footage, ("a man", "a dog", "a cat"))), [])
    assert said([tmp_path], footage[:1], None) == ({footage[0]: "a man"}, []), path


def test_control_characters_in_a_subject_are_one_line(phone):
    path = table(phone, "top.mov,a m\x1b[Aan")
    _, problems = said([phone], [phone / "top.mov"])
    assert len(problems) == 1 and problems[0].startswith(f"{path}, line 2: the subject")


def test_plain_name_of_several_files_lists_them(phone):
    path, footage = table(phone, "one,a man"), [phone / "A/one.mov", phone / "B/one.mov"]
    assert find_tables([phone], footage) == [path]
    with pytest.raises(UserError) as caught:
        read_subjects(path, footage)
    assert str(caught.value) == (f"{path}, line 2: one fits {footage[0]}, {footage[1]}. Write the path of "
                                 f"one, from the table's folder, such as ./one.")
    path.write_text("file,subject\n./A/one.mov,a man\nB/one.mov,a dog\n,a cat\n")
    with pytest.raises(UserError, match="line 4: is not of the form"):
        read_subjects(path, footage)
    path.write_text(path.read_text().replace(",a cat\n", ""))
    assert read_subjects(path, footage) == dict(zip(footage, ("a man", "a dog")))
