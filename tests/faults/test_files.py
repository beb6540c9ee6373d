"""Damaged motion weights, checkpoints and caches: refused in one line, or loaded to the right values.

Never applied in part, never a traceback, never more memory than the file is worth.
"""

import json
import resource
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from models.base import load_base
from models.motion_weights import MotionInfo, apply_motion, save_motion
from models.tunable import select_tunable, union
from tests.reliability import Report, count, numbers
from training.checkpoint import load_checkpoint, save_checkpoint
from training.inputs import cache_path, fill_cache, is_cached
from utils.errors import UserError
from utils.tensor_files import read_metadata, read_tensors, write_tensors

GROUPS = ["cross"]
MEMORY_BOUND = 300e6   # bytes by which a thousand damaged files may raise the peak; each has less than 1 MB


# -------------------------------------------------------------------------------- ways of damaging any bytes

def flip_bits(content: bytearray, rng: Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 30))):
        # half of them in the header, which is small
        end = rng.choice((len(content), min(len(content), 3000)))
        content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return content


def cut(content: bytearray, rng: Random) -> bytes:
    return content[: rng.choice((rng.randrange(len(content)), len(content) - 1, rng.randrange(20)))]


def append(content: bytearray, rng: Random) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 100))


def overwrite(content: bytearray, rng: Random) -> bytes:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 400))
    content[start:end] = rng.choice((bytes(end - start), rng.randbytes(end - start)))
    return content


def write_nans(content: bytearray, rng: Random) -> bytes:
    start = rng.randrange(len(content) * 3 // 4, len(content) - 8) & ~3
    content[start : start + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"))))
    return content


def nonsense(content: bytearray, rng: Random) -> bytes:
    return rng.choice((b"", b"\0" * 64, rng.randbytes(300), b"<html>404</html>", b"[" * 50_000, b"{}",
                       b"null"))


# ------------------------------------------------------------------------------------ and safetensors headers

def split(content: bytes) -> tuple[dict, bytes]:
    """Return the header of a safetensors file, and its data."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), bytes(content[8 + length :])


def joined(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def declare_another_length(content: bytearray, rng: Random) -> bytes:
    length = rng.choice((0, 1, 2**31, 2**63, 2**64 - 1, len(content), rng.randrange(2**64)))
    return length.to_bytes(8, "little") + content[8:]


def declare_another_tensor(content: bytearray, rng: Random) -> bytes:
    header, data = split(content)
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    change = rng.randrange(5)
    if change == 0:
        entry["shape"] = rng.choice(([2**40], [2**31, 2**31], [], [0], [-1], entry["shape"][::-1] + [1]))
    elif change == 1:
        entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "X9", ""))
    elif change == 2:
        entry["data_offsets"] = rng.choice(([0, 2**50], [2**62, 2**63], [5, 1], [0, 0], [0], [-4, 4]))
    elif change == 3:
        other = header[rng.choice([name for name in header if name != "__metadata__"])]
        entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
    else:
        header["x" * 1000 if rng.random() < 0.5 else "another"] = header.pop(
            rng.choice([name for name in header if name != "__metadata__"]))
    return joined(header, data)


def change_description(content: bytearray, rng: Random) -> bytes:
    header, data = split(content)
    description = header["__metadata__"]
    key = rng.choice(sorted(description))
    change = rng.randrange(3)
    if change == 0:
        del description[key]
    elif change == 1:
        description[key] = rng.choice(("", "0", "-1", "null", "{}", "[" * 2000, "1e999", "\0", "../..",
                                       "NaN"))
    else:
        del header["__metadata__"]
    return joined(header, data)


BYTES = (flip_bits, cut, append, overwrite, write_nans, nonsense)
HEADERS = (declare_another_length, declare_another_tensor, change_description)


# ----------------------------------------------------------------------------- ways that keep the digest true

def damage_tensors(tensors: dict[str, Tensor], rng: Random) -> None:
    """Make tensors that no run has, to be written as if a run had."""
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    change = rng.randrange(6)
    if change == 0:
        tensors[name] = torch.cat([tensor.reshape(-1), torch.zeros(1, dtype=tensor.dtype)])
    elif change == 1 and tensor.is_floating_point():
        tensors[name] = torch.full_like(tensor, rng.choice((float("nan"), float("inf"), -float("inf"))))
    elif change == 2:
        del tensors[name]
    elif change == 3:
        tensors[f"{name}.more"] = torch.zeros(3)
    elif change == 4:
        tensors[name] = tensor.to(torch.int32)
    else:
        tensors[name] = tensor[None]


@dataclass(frozen=True)
class Target:
    """A kind of file, and what loading it right means."""

    paths: list[Path]                     # the files of one whole specimen
    load: Callable[[], str]               # load it: a word for how it went, AssertionError if it went wrong
    header_ways: tuple[Callable, ...]


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base))


def make_info(base) -> MotionInfo:
    return MotionInfo(base.name, base.fingerprint, GROUPS, "sks", 7, 8.0, "subject: spin\n", {"torch": "2"})


def refused(load: Callable[[], object], unchanged: Callable[[], bool]) -> bool:
    """Load; say whether it was refused, which must have changed nothing."""
    try:
        load()
    except UserError as error:
        assert all(0 < len(line) < 1000 and "\n" not in line for line in error.problems), error
        assert "Traceback" not in str(error) and unchanged(), "applied in part"
        return True
    return False


def motion_target(folder: Path, base) -> Target:
    parameters = dict(base.unet.named_parameters())
    torch.manual_seed(0)
    tuned = {name: parameters[name].detach() + torch.randn_like(parameters[name])
             for name in union(select_tunable(parameters, GROUPS))}
    path = folder / "motion.safetensors"
    save_motion(path, tuned, make_info(base), "fp32")
    before = {name: parameters[name].detach().clone() for name in parameters}

    def load() -> str:
        try:
            if refused(lambda: apply_motion(base.unet, base.fingerprint, path),
                       lambda: all(torch.equal(parameters[name], before[name]) for name in before)):
                return "refused"
            assert all(torch.equal(parameters[name], tuned.get(name, before[name])) for name in before)
            return "loaded, every value right"
        finally:
            for name in tuned:
                parameters[name].data.copy_(before[name])

    return Target([path], load, HEADERS)


def trained_network(seed: int) -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(seed)
    trained = {f"layer{index}.weight": torch.nn.Parameter(torch.randn(20, 30)) for index in range(4)}
    optimizer = torch.optim.AdamW(trained.values())
    sum(parameter.square().sum() for parameter in trained.values()).backward()
    optimizer.step()
    return trained, optimizer


def values_of(trained: dict, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    states = [state[name] for state in optimizer.state_dict()["state"].values() for name in sorted(state)]
    return [value.detach().clone() for value in (*trained.values(), *states)]


def checkpoint_target(folder: Path, base) -> Target:
    saved, optimizer = trained_network(0)
    wanted = values_of(saved, optimizer)
    path = folder / "checkpoint-7"
    state = {"clips": {"exemplar/a.mp4": ["digest", ["a V* spin"]]}, "num_processes": 1, "scaler": None,
             "base_fingerprint": base.fingerprint}
    save_checkpoint(path, saved, optimizer, make_info(base), "fp16", state)

    def load() -> str:
        trained, other = trained_network(1)
        before = values_of(trained, other)

        def equal(values: list[Tensor]) -> bool:
            return all(map(torch.equal, values_of(trained, other), values))

        def load_whole() -> None:
            assert {**load_checkpoint(path, trained, other), "optimizer": 0} == {
                **state, "step": 7, "optimizer": 0, "tensors": digest}

        digest = json.loads(whole)["tensors"]
        if refused(load_whole, lambda: equal(before)):
            return "refused"
        assert equal(wanted)
        return "loaded, every value right"

    whole = (path / "state.json").read_text()
    return Target([path / "state.safetensors", path / "state.json"], load, HEADERS)


def cache_target(folder: Path, base) -> Target:
    made_from = {"kind": "latents", "clip": "abc", "frames": list(range(20))}
    path = cache_path(folder, made_from)
    torch.manual_seed(0)
    tensors = {"mean": torch.randn(20, 4, 8, 8), "std": torch.randn(20, 4, 8, 8)}

    def load() -> str:
        found = is_cached(path)
        fill_cache(path, made_from, lambda: tensors)
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in read_tensors(path).items())
        return "loaded, every value right" if found else "made again"

    fill_cache(path, made_from, lambda: tensors)
    return Target([path], load, HEADERS)


@pytest.mark.parametrize("kind", ["motion", "checkpoint", "cache"])
def test_damaged_file_is_refused_or_loads_to_the_right_values(kind, base, tmp_path):
    report, make = Report(f"damaged {kind} files"), {"motion": motion_target, "checkpoint": checkpoint_target,
                                                     "cache": cache_target}[kind]
    target = make(tmp_path, base)
    whole = {path: path.read_bytes() for path in target.paths}
    assert target.load() == "loaded, every value right"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for attempt in range(count(sample=60, full=400)):
        rng = numbers(kind, attempt)
        path = rng.choice(target.paths)
        damage = rng.choice(BYTES + target.header_ways if path.suffix == ".safetensors" else BYTES)
        path.write_bytes(damage(bytearray(whole[path]), rng))
        try:
            report.add(target.load())
        except Exception as error:
            raise AssertionError(f"{kind}, attempt {attempt}: {damage.__name__} of {path.name}") from error
        for path in target.paths:
            path.write_bytes(whole[path])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    report.figures["peak memory grew by MB"] = round(grown / 1e6, 1)
    report.write()
    assert grown < MEMORY_BOUND and report.outcomes.get("refused", report.outcomes.get("made again", 0)) > 40
    assert target.load() == "loaded, every value right"


def test_tensors_that_no_run_has_are_refused_though_their_digest_is_true(base, tmp_path):
    """Wrong shapes, NaNs, missing and strange tensors, written as carefully as the right ones."""
    report = Report("crafted motion files")
    target = motion_target(tmp_path, base)
    (path,) = target.paths
    tensors, description = read_tensors(path), read_metadata(path)
    for attempt in range(count(sample=12, full=200)):
        changed = dict(tensors)
        damage_tensors(changed, numbers("crafted", attempt))
        write_tensors(path, changed, description)
        assert target.load() == "refused", attempt
        report.add("refused")
    report.write()


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_parts_of_another_checkpoint_are_refused(base, tmp_path, name):
    """Swapped headers, so to speak: each file is whole, and belongs elsewhere."""
    target = checkpoint_target(tmp_path, base)
    trained, optimizer = trained_network(2)
    info = make_info(base)
    save_checkpoint(tmp_path / "other", trained, optimizer, info, "fp16", {"clips": {}})
    shutil.copy(tmp_path / "other" / name, target.paths[0].with_name(name))
    assert target.load() == "refused"


def test_header_of_another_file_is_refused(base, tmp_path):
    target = motion_target(tmp_path, base)
    (path,) = target.paths
    tensors = {name: tensor + 1 for name, tensor in read_tensors(path).items()}
    write_tensors(tmp_path / "other.safetensors", tensors, read_metadata(path))
    header, _ = split((tmp_path / "other.safetensors").read_bytes())
    path.write_bytes(joined(header, split(path.read_bytes())[1]))
    assert target.load() == "refused"


def test_cache_of_another_clip_under_this_name_is_made_again(base, tmp_path):
    target = cache_target(tmp_path, base)
    made_from = {"clip": "xyz"}
    other = fill_cache(cache_path(tmp_path, made_from), made_from, lambda: {"mean": torch.ones(3)})
    shutil.copy(other, target.paths[0])
    assert target.load() == "made again"
