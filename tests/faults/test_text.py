"""Any text in configs, prompt files, captions, file names and arguments: no traceback, nothing written
elsewhere, and what is accepted comes back as it was."""

import json
import os
import shutil
import string
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from rendering.gallery import list_videos, write_gallery
from tests.conftest import write_clip
from tests.reliability import IS_FULL, SEED, Report, count
from training.clips import clip_report, find_clips
from training.config import Config
from training.config_loading import config_yaml, examine_config, flat_config, parse_config
from utils.captions import add_captions, captions_of, read_caption_index
from utils.errors import UserError
from utils.files import is_text
from utils.prompt_lists import read_prompts
from utils.prompts import Prompt, file_name
from utils.tensor_files import read_metadata, read_tensors, write_tensors

KEYS = sorted(flat_config(Config()))
NASTY = ["<img src=x onerror=alert(1)>", "</script>", "../../etc/passwd", "-rf", "--help", "a\nb", "a\rb",
         "\0", "'\"`$(touch x)`", "%s%n{}{0}", "x" * 300, "\u202egnp", "\U0001f600\u200d\U0001f5a4", "\ud800",
         ".", "..", "CON", "~", "*", "&", "!!python/object/apply:os.system [id]", "${oc.env:HOME}", "${a}",
         "???", "1e999", "nan", "-0", "0x10", "yes", "null", "[", "{", ": ", "- ", "#", "|", ">", "\ufeff"]
texts = st.one_of(st.text(max_size=80), st.sampled_from(NASTY),
                  st.text(alphabet=string.printable, max_size=40))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(texts, scalars, max_size=2))
file_bytes = st.one_of(st.binary(max_size=200), texts.map(lambda text: text.encode(errors="replace")))
# of files on this system: any bytes but the two that it reserves
names = st.one_of(texts.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=60)).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")[:200])

EXAMPLES = count(sample=30, full=1_000)


def fuzzed(*strategies, **named):
    """Run a test on so many examples; always the same ones, those of the seed for the full count."""
    def decorate(test):
        wanted = settings(max_examples=EXAMPLES, deadline=None, derandomize=not IS_FULL, database=None,
                          suppress_health_check=list(HealthCheck))
        test = wanted(given(*strategies, **named)(test))
        return seed(SEED)(test) if IS_FULL else test

    return decorate


@pytest.fixture(scope="module", autouse=True)
def report():
    report = Report("fuzzed texts")
    yield report
    report.figures["examples of each test"] = EXAMPLES
    report.write()


@pytest.fixture
def folder(tmp_path):
    """Return a function that gives a new folder in one where nothing else may appear."""
    def new() -> Path:
        return Path(tempfile.mkdtemp(dir=tmp_path))

    yield new
    assert all(path.is_dir() for path in tmp_path.iterdir())


def refused(call) -> bool:
    """Say whether a call raises UserError, every line of which can be shown."""
    try:
        call()
    except UserError as error:
        assert error.problems and all(line.isprintable() and line.strip() for line in error.problems)
        return True
    return False


# ---------------------------------------------------------------------------------------------------- configs

@fuzzed(st.dictionaries(st.one_of(st.sampled_from(KEYS), texts), values, max_size=6))
def test_config_of_any_content_is_checked_or_comes_back(folder, content):
    nested = {}
    for key, value in content.items():
        section, dot, name = key.rpartition(".")
        (nested.setdefault(section, {}) if dot and isinstance(nested.get(section, {}), dict) else nested)[
            name if dot else key] = value
    path = folder() / "config.yaml"
    path.write_text(yaml.safe_dump(nested), encoding="utf-8", errors="replace")
    check_config(path)


@fuzzed(file_bytes)
def test_config_of_any_bytes_is_checked_or_comes_back(folder, content):
    path = folder() / "config.yaml"
    path.write_bytes(content)
    check_config(path)


@fuzzed(st.sampled_from(KEYS), st.one_of(texts, scalars.map(str)))
def test_override_of_any_text_is_checked_or_comes_back(folder, key, text):
    path = folder() / "config.yaml"
    path.write_text("train_data: {path: clips}")
    check_config(path, [f"{key}={text}"])


def check_config(path: Path, overrides: list[str] = ()) -> None:
    try:
        config, notes, problems, _ = examine_config(path, list(overrides))
    except UserError as error:
        problems = error.problems
        assert problems
        return
    if not problems:
        assert parse_config(config_yaml(config), "again")[0] == config
        config_yaml(config).encode()   # it is written beside the results
    else:
        assert refused(lambda: (_ for _ in ()).throw(UserError(*problems)))


# ---------------------------------------------------------------------------------------------------- prompts

@fuzzed(file_bytes)
def test_prompt_file_of_any_bytes_is_refused_or_comes_back(folder, content):
    path = folder() / "prompts.txt"
    path.write_bytes(content)
    check_prompts(str(path), path.parent)


@fuzzed(st.lists(st.tuples(st.one_of(st.integers(), texts), texts), max_size=4))
def test_prompt_lines_are_refused_or_come_back(folder, lines):
    path = folder() / "prompts.txt"
    text = "\n".join(f"{seed},{prompt}" for seed, prompt in lines)
    path.write_text(text, encoding="utf-8", errors="replace")
    check_prompts(str(path), path.parent)


@fuzzed(texts.filter(lambda text: not text.lower().endswith(".txt")))
def test_prompt_of_any_text_is_refused_or_comes_back(folder, text):
    check_prompts(text, folder())


def check_prompts(given: str, folder: Path) -> None:
    prompts = []
    if refused(lambda: prompts.extend(read_prompts(given, seed=7))):
        return
    again = folder / "again.txt"
    # a seed before every prompt and quotes around it: a comment, a seed or a quote in it is then the prompt
    lines = [f'{prompt.seed},"{prompt.text.replace(chr(34), chr(34) * 2)}"\n' for prompt in prompts]
    again.write_text("".join(lines), encoding="utf-8")
    assert read_prompts(str(again), seed=0) == prompts
    for prompt in prompts:
        check_file_name(prompt, folder)


def check_file_name(prompt: Prompt, folder: Path) -> None:
    """The name is one that can be written, in the folder and nowhere else, and is shown."""
    name = file_name(prompt)
    path = folder / name
    assert path.parent == folder and path.name == name and not name.startswith(("-", "."))
    assert len(name.encode()) <= 255 and name.isprintable()
    path.write_bytes(b"video")
    assert [video["file"] for video in list_videos(folder)] == [name]
    path.unlink()


# --------------------------------------------------------------------------------------------------- captions

@fuzzed(file_bytes)
def test_caption_file_of_any_bytes_is_refused_or_one_line(folder, content):
    clip = folder() / "clip.mp4"
    clip.with_suffix(".txt").write_bytes(content)
    captions = []
    if not refused(lambda: captions.extend(captions_of(clip, read_caption_index(clip.parent), ()))):
        assert len(captions) == 1 and captions[0].strip() == captions[0] and "\n" not in captions[0]


@fuzzed(st.one_of(st.dictionaries(texts, values, max_size=4).map(json.dumps), values.map(json.dumps),
                  st.text(max_size=100)))
def test_index_of_captions_is_refused_or_comes_back(folder, content):
    where = folder()
    (where / "text.json").write_text(content, encoding="utf-8", errors="replace")
    if not refused(lambda: read_caption_index(where)):
        before = read_caption_index(where).captions
        add_captions(where, {"new.mp4": "a <b>bold</b> \"cat\""})
        after = read_caption_index(where).captions
        assert after == {**before, "new.mp4": ("a <b>bold</b> \"cat\"",)}


@fuzzed(st.dictionaries(names.filter(bool), texts, max_size=3))
def test_gallery_of_any_names_and_captions_holds_no_markup_of_theirs(folder, videos):
    where = folder()
    for name, caption in videos.items():
        path = Path(os.fsdecode(os.fsencode(where) + b"/v" + name + b".mp4"))
        path.write_bytes(b"video")
        path.with_suffix(".txt").write_text(caption, encoding="utf-8", errors="replace")
    page = write_gallery(where).read_text(encoding="utf-8")
    listing = page.partition('<script type="application/json" id="list">')[2].partition("</script>")[0]
    assert "<" not in listing and len(json.loads(listing)["videos"]) == len(
        [path for path in where.iterdir() if path.suffix == ".mp4"])


# ------------------------------------------------------------------------------------------------- file names

@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", num_frames=4, width=32, height=32)


@fuzzed(names)
def test_clip_of_any_name_is_used_or_named(folder, clip, name):
    """As a regularization clip, whose caption may be its name: it must then be text."""
    where = folder()
    path = os.fsencode(where) + b"/v" + name + b".mp4"
    shutil.copy(clip, path)
    data = {"path": str(clip.parent), "class_path": str(where), "fallback_prompt": "a V* spin", "width": 32,
            "height": 32, "n_sample_frames": 2, "fps": 8}
    config, found = parse_config(yaml.safe_dump({"train_data": data}), "test")[0], []
    if not refused(lambda: found.append(find_clips(config, 8))):
        (clips,) = found
        assert os.fsencode(clips[1][0].path) == path and clips[1][0].captions[0].encode()
        clip_report(*clips).encode("utf-8", "backslashreplace")


@fuzzed(names.filter(bool), texts.filter(is_text))
def test_tensor_files_of_any_name_and_description_come_back(folder, name, text):
    path = folder() / f"v{name.decode(errors='replace')[:60]}.safetensors"
    write_tensors(path, {"a": torch.ones(2)}, {"text": text})
    assert read_metadata(path) == {"text": text} and read_tensors(path)["a"].tolist() == [1, 1]


# ------------------------------------------------------------------------------------------------- arguments

FLAGS = ["-m", "-p", "-o", "-s", "-n", "-r", "-d", "--steps", "--guidance-scale", "--fps", "--strength",
         "--batch-size", "--precision", "--export", "--base", "--overwrite", "--nonsense", "--resume",
         "--config"]


@pytest.mark.parametrize("script", ["generate_pretrained", "train_model"])
def test_any_arguments_are_refused_in_lines(script, tmp_path, monkeypatch, capsys):
    """There is no base here, so none may be accepted; and none may leave a file behind."""
    from utils.errors import run_script

    main = __import__(script).main
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    @fuzzed(st.lists(st.sampled_from(FLAGS) | texts.filter(lambda text: "\0" not in text), max_size=6))
    def check(arguments):
        sys.argv = [f"{script}.py", *arguments]
        with pytest.raises(SystemExit) as caught:
            run_script(main)
        said = capsys.readouterr()
        is_help = caught.value.code in (0, None) and "usage:" in said.out
        assert is_help or caught.value.code == 2 and said.err.strip(), arguments
        assert not list(tmp_path.iterdir()), arguments

    before = sys.argv
    try:
        check()
    finally:
        sys.argv = before
