"""The clip, window, caption and randomness of a training example: a function of (seed, role, turn).

A turn counts the examples of one role (exemplar, regularization) over the whole run. As it is the same
number however a global batch is split over processes and accumulation, clip, caption, timestep and noise
are the same too.
"""

from dataclasses import dataclass

import torch

from training.clips import Clip
from training.seeds import generator_for


@dataclass(frozen=True)
class Window:
    """A training example: `clip.window` frames from `start`, with one caption."""

    clip: Clip
    start: int                   # index into clip.frames
    caption: str
    generator: torch.Generator   # for the example's posterior noise, timestep and noise, in this order


def turns(step: int, micro_step: int, num_micro_steps: int, rank: int, num_ranks: int,
          batch_size: int) -> range:
    """Return the turns of one process in one micro-step (forward and backward pass) of an optimizer step."""
    first = ((step * num_micro_steps + micro_step) * num_ranks + rank) * batch_size
    return range(first, first + batch_size)


def draw_window(clips: list[Clip], role: str, seed: int, turn: int) -> Window:
    """Draw the training example of one turn.

    Clips are dealt like cards: every clip once, in an order shuffled anew for each round, so that all are
    seen equally often however many there are of each role.
    """
    dealing, card = divmod(turn, len(clips))
    order = torch.randperm(len(clips), generator=generator_for("order", role, seed, dealing))
    clip, generator = clips[order[card]], generator_for("example", role, seed, turn)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    return Window(clip, below(clip.num_windows), clip.captions[below(len(clip.captions))], generator)
