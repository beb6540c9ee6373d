"""utils/arguments.py, and that no program takes numbers that end in a traceback or in an endless run."""

import importlib
import sys

import pytest

from utils.arguments import not_negative, positive
from utils.errors import UserError

# what a program needs beside the flags below; flags of numbers above zero; flags of 0 or above
PROGRAMS = {
    "puppets.measure_base": (["--out", "x"], ["num", "num-inference-steps", "guidance-scale", "batch-size"],
                             ["seed", "sheet"]),
    "puppets.pretrain_base": (["--work-dir", "x", "--minutes", "1"], [
        "minutes", "total-minutes", "workers", "batch-size", "frames-batch", "shard-clips", "learning-rate",
        "check-clips", "kept-as-latents", "kept-as-frames", "checkpoint-steps"],
        ["motion-weight", "num-measured", "seed", "first-shard"]),
    "puppets.train_recognizers": (["--work-dir", "x", "--stage", "motion"], [
        "minutes", "steps", "batch-size", "first-shards", "learning-rate", "checkpoint-steps"], ["seed"]),
    "puppets.contact_sheet": (["x", "y"], ["columns", "side", "most"], []),
    "puppets.theatre": (["--sheet", "x"], ["num", "rows"], ["seed"]),
    "studies.ablation": ([], ["videos", "inference-steps", "guidance-scale", "batch-size"],
                         ["minutes", "seeds"]),
    "studies.appearance": (["--out", "x"], ["num", "train-steps", "num-inference-steps", "guidance-scale",
                                            "batch-size"], ["seeds"]),
    "studies.samplers": (["--out", "x"], ["num", "steps", "batch-size"], ["seed"]),
    "studies.prove_reliability": ([], ["count"], ["seed"]),
    "evaluate_motion": (["-v", "x", "--exemplars", "y", "--motion", "z"], ["batch-size"], ["seed"]),
}


@pytest.mark.parametrize("module, needed, flag, value", [
    (module, needed, flag, value) for module, (needed, above_zero, others) in PROGRAMS.items()
    for flags, values in ((above_zero, ("0", "nan", "-2", "x")), (others, ("-1", "nan", "x")))
    for flag in flags for value in values])
def test_wrong_numbers_are_one_line(monkeypatch, module, needed, flag, value):
    script = importlib.import_module(module)
    monkeypatch.setattr(sys, "argv", [module, *needed, f"--{flag}={value}"])
    with pytest.raises(UserError, match=f"argument --{flag}: .*{value}") as refused:
        script.parse_args()
    assert len(str(refused.value).splitlines()) == 1


def test_misspelt_subject_of_the_reliability_tests_is_named(monkeypatch):
    from studies import prove_reliability

    monkeypatch.setattr(sys, "argv", ["prove_reliability", "kils"])
    with pytest.raises(UserError, match="'kils' is none of clips, disk"):
        prove_reliability.parse_args()


def test_numbers_are_returned_in_their_kind():
    assert positive(int)("3") == 3 and positive(float, most=10)("2.5") == 2.5 and not_negative(int)("0") == 0
    with pytest.raises(Exception, match="'2.5' is not a whole number above zero"):
        positive(int)("2.5")
    with pytest.raises(Exception, match="'11' is above 10"):
        positive(float, most=10)("11")
