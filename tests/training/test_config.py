"""Configs: every key of the published code means what it did, and everything wrong is said at once."""

import dataclasses
import inspect
import typing

import pytest

from tests.conftest import ROOT
from training.config import KEYS, Config, TrainData, ValidationData, is_due, num_due
from training.config_loading import (
    config_yaml,
    examine_config,
    flat_config,
    load_config,
    parse_config,
    save_config,
)
from training.config_text import yaml_leaves
from utils.errors import UserError
from utils.files import expanded

# every key and value of the published implementation's default config (interface.md), apart from its paths
PUBLISHED = """
pretrained_model_path: cerspense/zeroscope_v2_576w
output_dir: results
subject: best
placeholder_token: sks
initializer_token: null
prior_preservation: true
prior_lambda: 0.5
trainable_modules: [cross, temporal, temp_convs]
max_train_steps: 3000
learning_rate: 5e-6
checkpointing_steps: [1000, 2000, 3000]
validation_steps: [1000, 2000, 3000]
train_batch_size: 1
gradient_accumulation_steps: 1
scale_lr: false
lr_scheduler: constant
lr_warmup_steps: 0
adam_beta1: 0.9
adam_beta2: 0.999
adam_weight_decay: 1e-2
adam_epsilon: 1e-8
max_grad_norm: 1.0
use_8bit_adam: false
mixed_precision: fp16
gradient_checkpointing: true
enable_xformers_memory_efficient_attention: true
enable_torch_2_attn: true
cache_latents: false
cached_latent_dir: null
resume_from_checkpoint: null
seed: 64
use_offset_noise: false
offset_noise_strength: 0.1
extra_unet_params: null
kwargs: {}
dataset_types:
- folder
train_data:
  path: clips/exemplars
  class_path: clips/regularization
  width: 384
  height: 384
  n_sample_frames: 16
  fps: 24
  sample_start_idx: 0
  frame_step: 1
  add_token: true
  use_bucketing: true
  fallback_prompt: ['a person doing the sks dance']
  class_prompt: a person
  sampling: high-level
  train_weights: all
validation_data:
  prompt: prompts.txt
  sample_preview: true
  num_frames: 16
  width: 384
  height: 384
  num_inference_steps: 25
  guidance_scale: 9
"""
WITHOUT_EFFECT = {
    "initializer_token", "kwargs", "extra_unet_params", "enable_xformers_memory_efficient_attention",
    "enable_torch_2_attn", "cache_latents", "train_data.sample_start_idx", "train_data.frame_step",
    "train_data.add_token", "validation_data.sample_preview",
}


def parse(text: str = "", *overrides: str) -> Config:
    """Parse a config that has exemplars and whatever else `text` says."""
    return parse_config(f"train_data.path: clips\n{text}", "c.yaml", list(overrides))[0]


def problems_of(text: str = "", *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse(text, *overrides)
    return list(caught.value.problems)


def test_published_config_loads():
    config, _ = parse_config(PUBLISHED, "config.yaml")
    assert config.learning_rate == 5e-6 and config.train_data.fps == 24
    assert config.validation_data.guidance_scale == 9
    assert config.train_data.fallback_prompt == ["a person doing the sks dance"]
    assert config.train_data.class_prompt == ["a person"]


def test_published_config_names_each_key_without_effect():
    (note,) = parse_config(PUBLISHED, "config.yaml")[1]
    said, _, keys = note.partition(": ")
    assert said == "without effect here" and set(keys.split(", ")) == WITHOUT_EFFECT


@pytest.mark.parametrize("given, ignored_by, used_by", [
    ("lr_warmup_steps: 5", "constant", "constant_with_warmup"),
    ("lr_num_cycles: 3", "cosine", "cosine_with_restarts"), ("lr_power: 2", "cosine", "polynomial"),
    ('lr_step_rules: "1:5,0.1"', "linear", "piecewise_constant")])
def test_key_that_the_schedule_ignores_is_noted(given, ignored_by, used_by):
    text = f"train_data.path: clips\n{given}"
    notes = parse_config(text, "c.yaml", [f"lr_scheduler={ignored_by}"])[1]
    assert len(notes) == 1 and used_by in notes[0]
    key = given.partition(":")[0]
    assert notes[0].startswith(f"c.yaml: {key} has no effect with lr_scheduler: {ignored_by}")
    assert parse_config(text, "c.yaml", [f"lr_scheduler={used_by}"])[1] == []


def test_piecewise_constant_has_no_warm_up():
    text = 'train_data.path: clips\nlr_scheduler: piecewise_constant\nlr_step_rules: "1:5,0.1"'
    notes = parse_config(text, "c.yaml", ["lr_warmup_steps=5"])[1]
    assert len(notes) == 1 and "lr_warmup_steps has no effect" in notes[0]


@pytest.mark.parametrize("warmup, is_noted", [(800, False), (801, True)])
def test_warm_up_longer_than_the_training_is_noted(warmup, is_noted):
    text = f"train_data.path: clips\nlr_scheduler: linear\nmax_train_steps: 800\nlr_warmup_steps: {warmup}"
    notes = parse_config(text, "c.yaml")[1]
    assert bool(notes) == is_noted and (not is_noted or "before the learning rate has risen" in notes[0])


def test_defaults_are_the_published_values():
    published = flat_config(parse_config(PUBLISHED, "config.yaml")[0])
    defaults = flat_config(parse_config("train_data: {path: x}", "config.yaml")[0])
    chosen_anew = {"mixed_precision", "gradient_checkpointing", "train_data.path", "train_data.class_path",
                   "train_data.fallback_prompt", "train_data.class_prompt", "validation_data.prompt"}
    assert {key for key in defaults if defaults[key] != published[key]} == chosen_anew


@pytest.mark.parametrize("section", [Config, TrainData, ValidationData])
def test_every_field_has_a_comment(section):
    lines = inspect.getsource(section).splitlines()
    for field in dataclasses.fields(section):
        number = next(n for n, line in enumerate(lines) if line.startswith(f"    {field.name}:"))
        assert "  # " in lines[number] or lines[number - 1].startswith("    # "), field.name


def test_unknown_key_names_the_nearest():
    assert problems_of("train_data: {n_sample_frame: 8}") == [
        "c.yaml: train_data.n_sample_frame is not a key. Did you mean train_data.n_sample_frames?"]


def test_key_in_the_wrong_section_names_the_right_one():
    assert problems_of("n_sample_frames: 8") == [
        "c.yaml: n_sample_frames is not a key. Did you mean train_data.n_sample_frames?"]


def test_unknown_key_without_content_is_an_error_too():
    assert problems_of("validaton_data: {}") == [
        "c.yaml: validaton_data is not a key. Did you mean validation_data?"]


def test_known_key_with_an_empty_mapping_is_an_error():
    assert "learning_rate" in problems_of("learning_rate: {}")[0]


def test_empty_section_is_left_at_its_defaults():
    assert parse("validation_data:") == parse("validation_data: {}") == parse("")


def test_everything_wrong_is_said_at_once():
    problems = problems_of("subjct: x\nlearning_rate: fast\ntrain_data: {width: 0}\nlr_scheduler: cosin",
                           "seed=-1", "q")
    assert len(problems) == 6
    for words in ("subjct is not a key", "'fast'", "width is 0", "Did you mean cosine?",
                  "command line: seed is -1", "command line: 'q' is not of the form key=value"):
        assert any(words in problem for problem in problems), words


@pytest.mark.parametrize("text, words", [
    ("max_train_steps: 3.7",
     "max_train_steps: Value '3.7' of type 'float' could not be converted to Integer"),
    ("max_train_steps: true", "max_train_steps: Value 'True' of type 'bool'"),
    ("learning_rate: [1]", "learning_rate: Value '[1]' of type 'list'"),
    ("use_8bit_adam: maybe", "use_8bit_adam: Value 'maybe' is not a valid bool"),
    ("subject: [a]", "subject: Cannot convert 'list' to string"),
    ("checkpointing_steps: often", "'often' is neither a list of steps nor one whole number of steps"),
    ("validation_steps: [1, -2]", "[1, -2] is neither a list of steps"),
    ("train_data: {fallback_prompt: [[a]]}",
     "train_data.fallback_prompt: [['a']] is neither a text nor a list"),
    ("seed:", "seed has no value. Give it one, or leave the key out."),
    ("train_data: 5", "train_data is 5. It is a section"),
])
def test_wrong_type_is_named(text, words):
    assert any(words in problem for problem in problems_of(text)), problems_of(text)


@pytest.mark.parametrize("key", [
    "max_train_steps", "learning_rate", "train_batch_size", "gradient_accumulation_steps", "max_grad_norm",
    "train_data.width", "train_data.height", "train_data.n_sample_frames", "train_data.fps",
    "validation_data.num_frames", "validation_data.width", "validation_data.height",
    "validation_data.num_inference_steps"])
@pytest.mark.parametrize("value", [0, -1])
def test_what_must_be_above_zero_is_refused_at_zero_and_below(key, value):
    (problem,) = problems_of(f"{key}: {value}")
    assert f"{key} is {value}" in problem and "It must be above zero." in problem


@pytest.mark.parametrize("text, words", [
    ("prior_lambda: -0.5", "prior_lambda is -0.5. It must be at least zero."),
    ("learning_rate: .nan", "learning_rate is nan."),
    ("learning_rate: .inf", "learning_rate is inf."),
    ("adam_beta1: 1", "adam_beta1 is 1.0. It must be at least zero and below 1."),
    ("temporal_dropout: 1", "temporal_dropout is 1.0."),
    ("seed: 99999999999999999999", "seed is 99999999999999999999. It must be at least zero and at most"),
    ("mixed_precision: fp8", "mixed_precision is 'fp8'. It can be no, fp16, bf16."),
    ("train_data: {sampling: highlevel}", "Did you mean high-level?"),
    ("train_data: {train_weights: some}",
     "train_data.train_weights is 'some'. It can be all, spatial, temporal."),
    ("dataset_types: [folders]",
     "dataset_types has 'folders'. It can have folder, single_video, image, json."),
    ("dataset_types: []", "dataset_types is empty"),
    ("trainable_modules: []", "trainable_modules is empty. Nothing would train."),
    ("pretrained_model_path: ''", "pretrained_model_path is not set."),
    ("placeholder_token: two words", "placeholder_token is 'two words'. It must be one word, or one "),
    ("subject: a/b", "subject is 'a/b'. It names a folder"),
    ("subject: ..", "subject is '..'"),
    ("push_to_hub: dance", "push_to_hub is 'dance'. It has the form USER/NAME."),
    ("report_to: mlflow", "report_to is 'mlflow'. It can be tensorboard, wandb."),
])
def test_impossible_value_is_named(text, words):
    (problem,) = problems_of(text)
    assert words in problem


def test_missing_exemplar_folder_key_is_named():
    with pytest.raises(UserError, match="c.yaml: train_data.path is not set. "
                                        "Name the folder of your exemplar clips."):
        parse_config("", "c.yaml")


@pytest.mark.parametrize("text, words", [
    ("a: [", "c.yaml: is not valid YAML: line"),
    ("subject: x\nsubject: y", "line 2, found duplicate key subject"),
    ("a: ${b}", "Interpolation key 'b' not found"),
    ("- a\n- b", "c.yaml: does not hold `key: value` lines."),
    ("5", "c.yaml: does not hold `key: value` lines."),
])
def test_text_that_is_no_config_is_named(text, words):
    with pytest.raises(UserError) as caught:
        parse_config(text, "c.yaml")
    assert words in str(caught.value)


def test_missing_config_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.yaml: cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "nowhere.yaml")


def test_config_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "c.yaml").write_bytes("subject: caf\u00e9".encode("latin-1"))
    with pytest.raises(UserError, match="c.yaml: is not UTF-8 text"):
        load_config(tmp_path / "c.yaml")


def test_config_with_byte_order_mark_and_crlf_loads(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfsubject: dab\r\ntrain_data:\r\n  path: clips\r\n")
    config, _ = load_config(tmp_path / "c.yaml")
    assert (config.subject, config.train_data.path) == ("dab", "clips")


def test_bare_no_is_a_precision():
    assert parse("mixed_precision: no").mixed_precision == "no"
    assert parse("", "mixed_precision=no").mixed_precision == "no"


def test_learning_rate_without_a_dot_is_a_number():
    assert parse("learning_rate: 5e-6").learning_rate == 5e-6


def test_command_line_wins_over_the_file():
    config = parse("max_train_steps: 3",
                   "max_train_steps=5", "train_data.fps=8", "trainable_modules=[temp_convs]")
    assert (config.max_train_steps, config.train_data.fps, config.trainable_modules) == (5, 8, ["temp_convs"])


def test_prompt_on_the_command_line_is_taken_as_typed():
    typed = "64,a cat: V* dance, {slow} #1"
    assert parse("", f"validation_data.prompt={typed}").validation_data.prompt == [typed]


@pytest.mark.parametrize("key, typed", [
    ("train_data.path", "clips #2"), ("subject", "007"), ("subject", "no"), ("placeholder_token", "no"),
    ("output_dir", "1e3"), ("train_data.path", "a: b"), ("train_data.single_video_prompt", "[64] a: 'slow'"),
    ("validation_data.negative_prompt", "null, {blurry"), ("output_dir", "${a} \\${b}"), ("subject", "'a'"),
    ("placeholder_token", "12"), ("output_dir", "${"),
    ("validation_data.negative_prompt", "\\\\${oc.env:HOME} ${")])
def test_text_on_the_command_line_is_taken_as_typed(key, typed):
    types = "dataset_types=[folder, single_video]"
    config = parse("", types, f"{key}={typed}")
    assert flat_config(config)[key] == typed
    assert parse_config(config_yaml(config), "again") == (config, [])


def test_null_on_the_command_line_is_no_text():
    text = "train_data: {class_path: others}\nreport_to: wandb"
    for nothing in ("null", ""):
        overrides = ["train_data.path=clips", f"train_data.class_path={nothing}", f"report_to={nothing}"]
        config = parse_config(text, "c.yaml", overrides)[0]
        assert (config.train_data.class_path, config.report_to) == (None, None)
    assert problems_of("", "subject=") == [
        "command line: subject is ''. It names a folder: no slashes, no leading dot or dash."]


@pytest.mark.parametrize("written", ["007", "no", "1e3", "0x10", "2026-11-26", "~x", "12:30"])
def test_word_in_a_file_is_text_as_it_is_written(written):
    config = parse(f"subject: {written}\nplaceholder_token: {written}\n"
                   f"validation_data: {{prompt: [{written}]}}")
    assert (config.subject, config.placeholder_token) == (written, written)
    assert config.validation_data.prompt == [written]


def test_text_that_refers_to_a_number_is_that_number():
    assert parse("seed: 7\nsubject: ${seed}").subject == "7"


def test_home_and_variables_are_expanded_in_paths_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("CLIPS", "/data/clips")
    paths = [key.name for key in KEYS.values() if key.constraints.get("is_path")]
    assert len(paths) == 11
    every = ["dataset_types=[folder, single_video, image, json]"]
    config = flat_config(parse("", *every, *(f"{key}=~/a/$CLIPS" for key in paths)))
    assert {config[key] for key in paths} == {"/home/me/a//data/clips"}
    config = parse("output_dir: ~/results\ntrain_data: {class_path: $CLIPS/others}\n"
                   "validation_data: {prompt: '~ $HOME', negative_prompt: ~/$HOME}")
    assert (config.output_dir, config.train_data.class_path) == ("/home/me/results", "/data/clips/others")
    assert (config.validation_data.prompt, config.validation_data.negative_prompt) == (["~ $HOME"], "~/$HOME")


@pytest.mark.parametrize("key", ["subject", "output_dir", "train_data.fallback_prompt"])
def test_control_characters_in_a_text_are_refused(key):
    assert "has control characters" in problems_of("", f"{key}=a\0b")[0]


@pytest.mark.parametrize("types, missing", [
    ("json", "train_data.json_path is not set. Name the file that lists your clips and their captions"),
    ("image", "train_data.image_dir is not set. Name the folder of your pictures"),
    ("single_video", "train_data.single_video_path is not set. Name your exemplar clip")])
def test_data_set_without_its_files_is_named(types, missing):
    with pytest.raises(UserError, match=missing):
        parse_config(f"dataset_types: [{types}]", "c.yaml")


def test_temporal_weights_are_all_weights():
    assert parse("train_data.train_weights: temporal").train_data.train_weights == "all"


def test_keys_of_data_sets_that_are_not_used_are_named_and_left_out():
    text = "train_data: {path: a, frame_step: 2, image_dir: b, use_caption: false}"
    config, notes = parse_config(text, "c.yaml")
    assert notes == [
        "without effect here: train_data.image_dir, train_data.use_caption, train_data.frame_step"]
    assert parse_config(config_yaml(config), "again") == (config, [])


def test_list_of_prompts_on_the_command_line_is_a_list():
    assert parse("", "validation_data.prompt=[a cat, a dog]").validation_data.prompt == ["a cat", "a dog"]


def test_prompts_are_switched_off_with_null():
    assert not parse("validation_data: {prompt: a cat}", "validation_data.prompt=null").validation_data.prompt


def test_blank_captions_do_not_count():
    assert parse("train_data: {fallback_prompt: [null, ' ', a cat]}").train_data.fallback_prompt == ["a cat"]


def test_one_group_may_be_given_without_a_list():
    assert parse("trainable_modules: temp_convs").trainable_modules == ["temp_convs"]


def test_resolved_config_loads_again_equal(tmp_path):
    config = parse("mixed_precision: no\nvalidation_steps: 5\n"
                   "validation_data: {prompt: ['64,a V* cat: \"no\"', 'it''s']}")
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == (config, [])


def test_resolved_config_has_every_key():
    text = config_yaml(Config())
    assert all(f"{key.rpartition('.')[2]}:" in text for key in flat_config(Config()))


def test_wrong_config_can_still_be_looked_at(tmp_path):
    (tmp_path / "c.yaml").write_text("subjct: x\nseed: -3\nsubject: dab\n"
                                     "train_data: {path: clips, n_sample_frames: 0}")
    config, _, problems, unknown = examine_config(tmp_path / "c.yaml")
    assert len(problems) == 3
    assert (config.subject, config.seed, config.train_data.path) == ("dab", Config().seed, "clips")
    assert unknown == {"subjct", "subject", "seed", "train_data.n_sample_frames"}


def test_steps_are_due_by_list_and_by_interval():
    assert [step for step in range(1, 7) if is_due(step, [2, 5])] == [2, 5]
    assert [step for step in range(1, 7) if is_due(step, 3)] == [3, 6]
    assert not any(is_due(step, never) for step in range(1, 7) for never in (None, [], 0))


def test_every_number_has_a_limit():
    """Infinity, or a size of -1, is a mistake whatever the key."""
    numbers = {key.name for key in KEYS.values()
               if {int, float} & set(typing.get_args(key.kind) or [key.kind])}
    limited = {key.name for key in KEYS.values() if {"above", "least"} & set(key.constraints)}
    assert numbers == limited


def test_defaults_keep_to_their_own_constraints():
    faults = [key.name + key.fault(key.default) for key in KEYS.values() if key.fault(key.default)]
    assert faults == []


def test_wrong_size_does_not_hide_that_windows_are_too_long(tmp_path):
    """Clips are judged by the length of a window unless that is itself what is wrong."""
    (tmp_path / "c.yaml").write_text("train_data: {path: clips, width: -1, n_sample_frames: 100}")
    assert examine_config(tmp_path / "c.yaml").unknown == {"train_data.width"}


@pytest.mark.parametrize("rules", ["", "1:10", "0.1", "a:b,c", "1..2:100,0.1", "e:100,1", "1:100,-"])
def test_piecewise_constant_needs_rules(tmp_path, rules):
    (tmp_path / "c.yaml").write_text(f"lr_scheduler: piecewise_constant\nlr_step_rules: '{rules}'\n"
                                     "train_data: {path: x}")
    with pytest.raises(UserError, match="lr_step_rules is .* needs factors and steps"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("rules", ["1:100,0.1", "1:100,.5:200,1e-2", "1.:1,2.5e-1"])
def test_rules_of_piecewise_constant_are_numbers(tmp_path, rules):
    (tmp_path / "c.yaml").write_text(f"lr_scheduler: piecewise_constant\nlr_step_rules: '{rules}'\n"
                                     "train_data: {path: x}")
    assert load_config(tmp_path / "c.yaml")[0].lr_step_rules == rules


def test_samples_are_as_large_and_long_as_what_is_trained_on(tmp_path):
    (tmp_path / "c.yaml").write_text("train_data: {path: clips, width: 64, height: 48, n_sample_frames: 8}")
    samples = load_config(tmp_path / "c.yaml")[0].validation_data
    assert (samples.width, samples.height, samples.num_frames) == (64, 48, 8)
    samples = load_config(tmp_path / "c.yaml", ["validation_data.width=96"])[0].validation_data
    assert (samples.width, samples.height) == (96, 48)


@pytest.mark.parametrize("name", ["zeroscope.yaml", "animatediff.yaml"])
def test_config_of_the_paper_has_every_key_but_those_of_other_data_sets(name):
    text = (ROOT / "configs" / name).read_text(encoding="utf-8")
    named = {key for key, _ in yaml_leaves(text, name)}
    assert {name for name, key in KEYS.items() if "datasets" not in key.constraints} == named


def test_several_folders_and_their_words():
    config = parse("train_data: {path: [~/dance, jump, spin]}")
    assert config.train_data.path == [expanded("~/dance"), "jump", "spin"]
    assert config.placeholder_token == "sks,zwx,ohwx"   # spare words for the second and the third
    assert parse_config(config_yaml(config), "again") == (config, [])
    assert parse("train_data: {path: [dance]}").train_data.path == "dance"
    assert parse("", "train_data.path=[dance, jump]").train_data.path == ["dance", "jump"]


@pytest.mark.parametrize("given", ["[sks, olis]", "sks,olis"])
def test_words_of_several_motions_are_a_list_or_typed(given):
    assert parse(f"placeholder_token: {given}").placeholder_token == "sks,olis"
    assert parse("", f"placeholder_token={given}").placeholder_token == "sks,olis"


def test_two_motions_of_one_word_are_refused():
    assert problems_of("placeholder_token: [sks, sks]") == [
        "c.yaml: placeholder_token is 'sks,sks'. Two motions need two words."]


@pytest.mark.parametrize("steps", [None, 0, 1, 3, 10, 11, [], [10], [2, 2, 5, 11, -1]])
def test_counted_steps_are_those_that_are_due(steps):
    assert num_due(steps, 10) == sum(is_due(step, steps) for step in range(1, 11))


def test_steps_of_an_endless_run_are_counted_at_once():
    assert num_due(500, 10**15) == 2 * 10**12
