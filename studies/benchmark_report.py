"""The Markdown report of studies/benchmark.py: tables of medians and ranges of its measurements."""

import json
from collections.abc import Iterator
from statistics import median
from typing import Any

from utils.devices import precision_name
from utils.files import format_bytes
from utils.wording import table

PHASES = ("data", "forward", "backward", "optimizer", "rest")


def benchmark_report(results: dict[str, Any]) -> str:
    """Return the report of everything measured so far."""
    # as read from benchmark.json, where numbers that are keys have become text
    results = json.loads(json.dumps(results))
    facts = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if value is not None)
    lines = ["# Benchmark", "", f"    {results['command']}", "", f"{facts} (load: before it began)"]
    for name, case in results["cases"].items():
        lines += ["", f"## {name}: {case['what']}"]
        for part, section in SECTIONS.items():
            found = case.get(part) or {}
            if found.keys() - {"failed"}:
                lines += ["", *section(found)]
            if failed := found.get("failed"):
                lines += ["", *(f"- {what}: did not run ({reason})" for what, reason in failed.items())]
    return "\n".join([*lines, ""])


def step_section(found: dict[str, Any]) -> Iterator[str]:
    """The time of a step by variant, how many times as fast as plain that is, and the share of each phase."""
    def row(title: str, steps: list[dict[str, float]]) -> list[str]:
        seconds = [step["seconds"] for step in steps[1:]]   # the first is a warm-up
        rate = found["flop"] / median(seconds) if found["flop"] else None
        peak = found["rates"].get(found["precision"][title])
        phases = found["phases"].get(title)   # profiling may have failed
        shares = [f"{phases[phase]:.1%}" if phases else "" for phase in PHASES]
        faster = f"{median(plain) / median(seconds):.2f}" if plain else ""
        return [title, f"{median(seconds):.3f}", f"{min(seconds):.3f} to {max(seconds):.3f}", faster,
                f"{median(step['processor'] for step in steps[1:]):.3f}", *shares,
                f"{rate / 1e12:.3g}" if rate else "", f"{rate / peak:.0%}" if rate and peak else "",
                f"{steps[0]['seconds']:.1f}"]

    plain = [step["seconds"] for step in found["taken"].get("plain", ())[1:]]   # it may not have run
    yield from table(("variant", "s a step", "range", "x plain", "processor s", *PHASES, "TFLOP/s", "of peak",
                      "first, s"), [row(title, steps) for title, steps in found["taken"].items()])
    rates = ", ".join(f"{precision_name(name)} {rate / 1e12:.3g} TFLOP/s"
                      for name, rate in found["rates"].items())
    yield ""
    if found["flop"] and rates:
        yield (f"A step is {found['flop'] / 1e12:.3g} TFLOP without recomputation. The peak is that of a "
               f"large matrix product here: {rates}.")


def memory_section(found: dict[str, Any]) -> Iterator[str]:
    names = ("weights", "gradients", "optimizer", "activations", "peak")
    yield from table(("variant", *names, "predicted", "off by"), [
        [title, *(format_bytes(sizes[name]) for name in names),
         *((format_bytes(sizes["predicted"]), f"{sizes['predicted'] / sizes['peak'] - 1:+.0%}")
           if sizes["predicted"] else ("", ""))] for title, sizes in found["peaks"].items()])


def video_section(found: dict[str, Any]) -> Iterator[str]:
    alone = median(found["taken"]["1"])
    yield from table(
        (f"{found['num']} videos, {found['steps']} steps", "s", "range", "s a video", "x one by one"),
        [["one by one" if size == "1" else f"in batches of {size}", f"{median(taken):.2f}",
          f"{min(taken):.2f} to {max(taken):.2f}", f"{median(taken) / found['num']:.2f}",
          f"{alone / median(taken):.2f}"] for size, taken in found["taken"].items()])


def surroundings_section(found: dict[str, Any]) -> Iterator[str]:
    cache, checkpoint = found["cache"], found["checkpoint"]
    yield (f"Filling the cache: {cache['seconds']:.2f} s for {cache['frames']} frames "
           f"({format_bytes(cache['bytes'])}). A checkpoint: {checkpoint['seconds']:.2f} s "
           f"({format_bytes(checkpoint['bytes'])}).")


def growth_section(found: dict[str, Any]) -> Iterator[str]:
    yield from table(("frames of one clip", *found["frames"]),
                     [["s a step", *(f"{cost['seconds']:.3f}" for cost in found["frames"].values())]])
    yield from ("", *table(("trained", *found["tuned"]),
                           [["s a step", *(f"{cost['seconds']:.3f}" for cost in found["tuned"].values())]]))
    if clips := found.get("clips"):
        yield from ("", *table(("clips", *clips), [
            ["s a step", *(f"{median(cost['taken']):.3f}" for cost in clips.values())],
            ["range", *(f"{min(cost['taken']):.3f} to {max(cost['taken']):.3f}" for cost in clips.values())],
            ["cache on disk", *(format_bytes(cost["cache"]) for cost in clips.values())],
            ["memory grown by reading all", *(format_bytes(cost["grown"]) for cost in clips.values())]]))
    if runs := found.get("processes"):
        yield from ("", *table(("processes", *runs), [
            ["s a step", *(f"{cost['seconds']:.3f}" for cost in runs.values())],
            ["threads each", *(cost["threads"] for cost in runs.values())],
            ["batches a second", *(f"{int(num) / cost['seconds']:.2f}" for num, cost in runs.items())]]))


SECTIONS = {"steps": step_section, "memory": memory_section, "videos": video_section,
            "surroundings": surroundings_section, "growth": growth_section}
