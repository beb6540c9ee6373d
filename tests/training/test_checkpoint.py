"""Checkpoints come back as they were, or are refused."""

import pytest
import torch

from models.motion_weights import MotionInfo
from training.checkpoint import Damaged, load_checkpoint, read_state, save_checkpoint
from utils.errors import UserError

INFO = MotionInfo("base", "print", ["all"], "sks", 3, 8.0, "", {})


def network(seed: int):
    torch.manual_seed(seed)
    parameters = {"a.weight": torch.nn.Parameter(torch.randn(3, 2)),
                  "b.bias": torch.nn.Parameter(torch.randn(2))}
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def step(parameters, optimizer):
    sum(parameter.square().sum() for parameter in parameters.values()).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_training_goes_on_bit_for_bit(tmp_path):
    parameters, optimizer = network(0)
    step(parameters, optimizer)
    save_checkpoint(tmp_path / "checkpoint-3", parameters, optimizer, INFO, "fp16", {"clips": {}})
    step(parameters, optimizer)
    restored, restored_optimizer = network(1)
    assert load_checkpoint(tmp_path / "checkpoint-3", restored, restored_optimizer)["step"] == 3
    step(restored, restored_optimizer)
    assert all(torch.equal(parameters[name], restored[name]) for name in parameters)


def test_state_given_is_state_returned(tmp_path):
    parameters, optimizer = network(0)
    state = {"clips": {"a": "b"}, "num_processes": 2}
    save_checkpoint(tmp_path / "c", parameters, optimizer, INFO, "fp16", state)
    assert read_state(tmp_path / "c")["clips"] == {"a": "b"}


def assert_refused_and_nothing_set(folder, parameters, optimizer, error, message):
    before = parameters["a.weight"].clone()
    with pytest.raises(error, match=message):
        load_checkpoint(folder, parameters, optimizer)
    assert torch.equal(parameters["a.weight"], before)


def test_other_tensors_are_refused_and_nothing_is_set(tmp_path):
    parameters, optimizer = network(0)
    save_checkpoint(tmp_path / "c", parameters, optimizer, INFO, "fp16", {})
    others, other_optimizer = network(1)
    others["b.bias"] = torch.nn.Parameter(torch.zeros(5))
    assert_refused_and_nothing_set(tmp_path / "c", others, other_optimizer, UserError, "other tensors")


def test_optimizer_state_of_another_shape_is_refused_and_nothing_is_set(tmp_path):
    parameters, optimizer = network(0)
    step(parameters, optimizer)
    optimizer.state[parameters["b.bias"]]["exp_avg"] = torch.zeros(5)
    save_checkpoint(tmp_path / "c", parameters, optimizer, INFO, "fp16", {})
    assert_refused_and_nothing_set(tmp_path / "c", *network(1), Damaged, "c: is damaged")


def test_tensors_of_another_checkpoint_are_refused(tmp_path):
    parameters, optimizer = network(0)
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, parameters, optimizer, INFO, "fp16", {})
        step(parameters, optimizer)
    (tmp_path / "a" / "state.safetensors").replace(tmp_path / "b" / "state.safetensors")
    with pytest.raises(Damaged, match="b: is damaged"):
        load_checkpoint(tmp_path / "b", *network(1))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": "x"}', '{"step": 3}', "[" * 100_000])
def test_damaged_state_is_refused(tmp_path, content):
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        read_state(tmp_path)


def test_failed_save_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    parameters, optimizer = network(0)
    save_checkpoint(tmp_path / "c", parameters, optimizer, INFO, "fp16", {"clips": {}})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.checkpoint.write_json", full)
    with pytest.raises(UserError, match=r"c: could not be written \(No space left on device\)"
                                        r".*are free there"):
        save_checkpoint(tmp_path / "c", parameters, optimizer, INFO, "fp16", {"clips": {}})
    assert read_state(tmp_path / "c")["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_nested_and_shared_optimizer_state_comes_back(tmp_path):
    """The layout of 8-bit Adam: a dictionary in each tensor's state, and one table that all of them share."""
    parameters, optimizer = network(0)
    table = torch.arange(4.0)
    for parameter in parameters.values():
        quantized = {"state1": torch.ones(2).byte(), "qmap1": table}
        optimizer.state[parameter] = {"step": 3, "__quantized__": quantized}
    save_checkpoint(tmp_path / "c", parameters, optimizer, INFO, "fp16", {})
    restored, restored_optimizer = network(1)
    load_checkpoint(tmp_path / "c", restored, restored_optimizer)
    for parameter in restored.values():
        state = restored_optimizer.state[parameter]
        assert state["step"] == 3 and torch.equal(state["__quantized__"]["qmap1"], table)


def test_checkpoint_without_its_tensors_says_what_to_remove(tmp_path):
    parameters, optimizer = network(0)
    save_checkpoint(tmp_path / "c", parameters, optimizer, INFO, "fp16", {})
    (tmp_path / "c" / "state.safetensors").unlink()
    with pytest.raises(UserError, match="c: is damaged. Remove it"):
        load_checkpoint(tmp_path / "c", *network(1))
