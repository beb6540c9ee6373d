"""Prompt weights: which prompts have them, and that they are never read as text where compel is missing."""

import importlib.util

import pytest

from utils.errors import UserError
from utils.prompt_lists import read_prompts
from utils.prompt_weights import check_weights, has_weights

WEIGHTED = [
    "robot++", "a robot++, dancing", "a robot+ in the snow", "robot--", "blurry-", "(a red robot)1.3",
    "(robot).8", "(a robot)++ dancing", "a (robot)-- here", "((a robot)1.2 cat)1.1", "C++",
    "pre- and post-war", "V*++", '("a cat", "a dog").blend(0.7, 0.3)', '("a cat", "a dog").and()', "don't--",
    "rock+-", "\u732b++"]
PLAIN = [
    "a robot", "a t-shirt", "salt+pepper", "3+4", "a well-known state-of-the-art cat", "a cat - a dog",
    "a ++ b", "--a", "a (red) robot", "in 1980 (summer) 1.3", "-5 degrees", "a cat (1980)", "x-ray, sci-fi",
    "and so on.", "rock-'n'-roll", "e-mail+@x", "fade-[in]"]


@pytest.fixture
def without_compel(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name == "compel" else find_spec(name))


@pytest.mark.parametrize("text", WEIGHTED)
def test_mark_without_compel_is_one_line_that_says_so(without_compel, text):
    with pytest.raises(UserError, match="is a prompt weight, which needs the package compel") as caught:
        read_prompts(text)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("text", PLAIN)
def test_hyphen_or_plus_in_a_word_is_no_mark(without_compel, text):
    assert not has_weights(text) and read_prompts(text, 1)[0].text == text


@pytest.mark.parametrize("text", ['("a cat","a dog").and()', '("a cat","a dog").blend(0.5)'])
def test_weights_that_give_no_embedding_are_refused_before_anything_starts(run_main, tiny_base, tmp_path,
                                                                           text):
    pytest.importorskip("compel")
    for prompts in (["-p", f"a cow|{text}"], ["-p", "a cow", "-n", text]):
        code, _, err = run_main("generate_pretrained", "-m", tiny_base, *prompts, "-o", tmp_path / "out")
        assert code == 2 and text in err and len(err.splitlines()) == 1
        assert not list((tmp_path / "out").glob("*.mp4"))


def test_negative_prompt_is_checked_too(without_compel, run_main, tiny_base, write_config, tmp_path):
    code, _, err = run_main("generate_pretrained", "-m", tiny_base, "-p", "a cat++|a dog", "-n", "blurry++",
                            "-o", tmp_path / "out")
    assert code == 2 and "'a cat++'" in err and "'blurry++'" in err and len(err.splitlines()) == 2
    config = write_config("validation_steps=1", "validation_data.negative_prompt=blurry++")
    code, _, err = run_main("train_model", "--config", config)
    assert code == 2 and "'blurry++'" in err and not (tmp_path / "results").exists()


@pytest.mark.parametrize("text", [*WEIGHTED, *PLAIN])
def test_compel_reads_the_same_marks(text):
    pytest.importorskip("compel")
    from compel.prompt_parser import Blend, PromptParser

    conjunction = PromptParser().parse_conjunction(text)
    if len(conjunction.prompts) == 1:
        check_weights(text)   # with compel nothing is wrong with them
    weights = [fragment.weight for prompt in conjunction.prompts if not isinstance(prompt, Blend)
               for fragment in prompt.children]
    is_more = len(conjunction.prompts) > 1 or any(isinstance(prompt, Blend) for prompt in conjunction.prompts)
    assert (is_more or any(weight != 1 for weight in weights)) == has_weights(text)
