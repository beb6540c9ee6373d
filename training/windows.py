"""Which example is trained on when, and the seeds of everything random in a run.

Every random choice is a pure function of (seed, purpose, position in the run), so that resuming needs no
saved random state. Source of this habit: NVlabs/edm2.

A turn counts the examples of one role (exemplar, regularization) over the whole run. The turns of a global
batch are the same however it is split over processes and accumulation, and so are its clips, captions,
timesteps and noise.
"""

import hashlib
from dataclasses import dataclass

import torch

from training.clips import Clip


@dataclass(frozen=True)
class Window:
    """A training example: `clip.window` frames from `start`, with one caption."""

    role: str                    # exemplar or regularization
    clip: Clip
    start: int                   # index into clip.frames
    caption: str
    generator: torch.Generator   # draws the example's posterior noise, timestep and noise, in this order
    shift: float = 0.0           # one of clip.shifts


def turns(step: int, micro_step: int, num_micro_steps: int, rank: int, num_ranks: int,
          batch_size: int) -> range:
    """Return the turns of one process in one micro-step (forward and backward pass) of an optimizer step."""
    first = ((step * num_micro_steps + micro_step) * num_ranks + rank) * batch_size
    return range(first, first + batch_size)


def draw_window(clips: list[Clip], role: str, seed: int, turn: int,
                caption_dropout_rate: float = 0.0) -> Window:
    """Draw the training example of one turn. A dropped caption is the empty one.

    Clips are dealt like cards: each clip once per round, in an order shuffled anew for each round. So all
    clips are seen equally often, however many clips each role has.
    """
    dealing, card = divmod(turn, len(clips))
    order = torch.randperm(len(clips), generator=generator_for("order", role, seed, dealing))
    clip, generator = clips[order[card]], generator_for("example", role, seed, turn)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    start, caption = below(clip.num_windows), clip.captions[below(len(clip.captions))]
    if torch.rand((), generator=generator_for("caption", role, seed, turn)) < caption_dropout_rate:
        caption = ""
    # A run without shifts draws nothing here, so that it is the same run as before this program knew shifts.
    shift = clip.shifts[below(len(clip.shifts))] if len(clip.shifts) > 1 else clip.shifts[0]
    return Window(role, clip, start, caption, generator, shift)


def generator_for(*key: int | str) -> torch.Generator:
    """Return a CPU generator for `key`. Noise is drawn on the CPU, so it is the same on every device."""
    return torch.Generator("cpu").manual_seed(seed_for(*key))


def seed_for(*key: int | str) -> int:
    """Return a 63-bit seed that is a fixed function of `key` and nothing else."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
