"""Motions that a caption names by their parts: each arm, the legs, the body.

An example is "a robot moving with one arm up and one arm circling, marching and swaying". The base learns
such motions beside the everyday ones, so that it sees each limb go everywhere, apart from the other limbs.
Eight whole motions alone never showed an arm that crosses the body, and the base could not be taught a
motion that needs it. With composed motions a new motion combines parts that the base knows, as for a large
model.

No measurement asks for these motions. A combination is left out where both arms do what the arms of a
kept-out motion do, at the same time or not.

Shapes: n puppets, f frames, as in puppets/motions.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from puppets.motions import POSERS, Pose, hang_arms, still_pose, wave

NEAR = 0.8    # radians: arms closer than this to those of a kept-out motion are too near
PHASES = 16   # moments of a cycle at which motions are compared


@dataclass(frozen=True)
class Swing:
    """value = center + size * sin(2 pi (cycles + shift)) + 2 pi turns * cycles"""

    center: float = 0
    size: float = 0
    shift: float = 0
    turns: int = 0

    def __call__(self, cycles: np.ndarray) -> np.ndarray:
        return self.center + self.size * wave(cycles, self.shift) + 2 * np.pi * self.turns * cycles


def rise(start: float, end: float) -> Swing:
    """Return a swing that is at `start` at whole cycles and at `end` halfway."""
    return Swing((start + end) / 2, (end - start) / 2, -0.25)


# Upper arm and elbow, radians: 0 hangs down, pi/2 points away from the body, pi up.
ARMS = {
    "hanging": (Swing(0.22), Swing()),
    "up": (Swing(2.8), Swing()),
    "out": (Swing(1.57), Swing()),
    "bent": (Swing(0.85), Swing(-1.5)),
    "swinging": (Swing(0, 1.5), Swing(0, 0.2)),
    "flapping": (rise(0.5, 1.9), Swing()),
    "circling": (Swing(turns=1), Swing()),
    "rolling": (Swing(turns=-1), Swing()),
    "waving": (Swing(2.05), Swing(0.7, 0.85)),
    "reaching": (rise(0.2, 2.5), Swing()),
    "folding": (rise(0.2, -1.7), rise(0, -1.0)),
    "pumping": (Swing(0.5), Swing(1.5, 0.9)),
}
STILL_ARMS = ("hanging", "up", "out", "bent")
LEGS = ("", "marching", "wide", "bouncing")
BODIES = ("", "swaying")


@dataclass(frozen=True)
class ComposedMotion:
    """A motion by its parts. With `in_turn` the other arm is half a cycle late."""

    arm: str
    other_arm: str
    in_turn: bool
    legs: str
    body: str

    @property
    def name(self) -> str:
        """The words of a caption: one arm up and one arm circling, marching and swaying."""
        arms = f"one arm {self.arm} and one arm {self.other_arm}"
        if self.arm == self.other_arm:
            arms = f"both arms {self.arm}" + " in turn" * self.in_turn
        rest = " and ".join(part for part in (self.legs, self.body) if part)
        return f"{arms}, {rest}" if rest else arms

    def __call__(self, pose: Pose, rows: np.ndarray, cycles: np.ndarray, middle: np.ndarray) -> None:
        hang_arms(pose, rows)
        for arm, out, doing, late in ((1, 1, self.arm, 0.0), (0, -1, self.other_arm, 0.5 * self.in_turn)):
            upper, elbow = (part(cycles + late) for part in ARMS[doing])
            pose.arms[rows, :, arm, 0] = out * upper
            pose.arms[rows, :, arm, 1] = out * (upper + elbow)
        pose.drop[rows] = 0.03
        if self.legs == "marching":
            pose.feet[rows, :, 0, 1] = 0.45 * np.maximum(0, wave(cycles))
            pose.feet[rows, :, 1, 1] = 0.45 * np.maximum(0, -wave(cycles))
        elif self.legs == "wide":
            pose.feet[rows, :, 0, 0], pose.feet[rows, :, 1, 0] = -0.5, 0.5
            pose.drop[rows] = 0.14
        elif self.legs == "bouncing":
            pose.drop[rows] = rise(0.03, 0.35)(cycles)
        if self.body == "swaying":
            pose.hip_x[rows], pose.lean[rows] = -4 * wave(cycles), 0.3 * wave(cycles)


@dataclass(frozen=True)
class Blend:
    """At every moment the pose halfway between two motions, both seen from the front.

    Where a caption has a made-up word, an untaught base draws motions like this. No base is trained on
    blends. The recognizers learn that a blend is neither of its two motions.
    """

    first: str
    second: str

    @property
    def name(self) -> str:
        return f"halfway between {self.first} and {self.second}"

    def __call__(self, pose: Pose, rows: np.ndarray, cycles: np.ndarray, middle: np.ndarray) -> None:
        ends = [still_pose(cycles, np.ones(len(cycles), np.float32)) for _ in range(2)]
        for end, motion in zip(ends, (self.first, self.second)):
            POSERS[motion](end, slice(None), cycles, middle)
        for name in ("x", "lift", "hip_x", "drop", "lean", "nod", "arms", "feet"):
            getattr(pose, name)[rows] = (getattr(ends[0], name) + getattr(ends[1], name)) / 2


def arms_over_a_cycle(motion: Callable) -> np.ndarray:
    """Return the angles of the arms (PHASES 2 2) over a cycle of a motion, one of POSERS."""
    cycles = np.linspace(0, 1, PHASES, endpoint=False, dtype=np.float32)[None]
    pose = still_pose(cycles, np.ones(1, np.float32))
    motion(pose, slice(None), cycles, cycles * 0)
    return pose.arms[0]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return how far the arms of two motions (PHASES 2 2) are apart: root mean square of angles, in radians.

    Each arm is compared at the phase at which it is nearest, and the farther one of the two arms counts. The
    second motion is mirrored if that brings it nearer.
    """
    mirrored = []
    for other in (b, -b[:, ::-1]):
        turns = np.stack([np.roll(other, shift, axis=0) for shift in range(PHASES)])
        off = np.abs((a - turns + np.pi) % (2 * np.pi) - np.pi)                          # (PHASES PHASES 2 2)
        mirrored.append(np.sqrt((off**2).mean(axis=(1, 3))).min(axis=0).max())
    return float(min(mirrored))


def list_motions(kept_out: tuple[str, ...]) -> dict[str, ComposedMotion]:
    """Return all motions by their names, except those whose arms come near a motion of `kept_out`."""
    pairs = [(arm, arm, in_turn) for arm in ARMS for in_turn in (False, True)
             if not (in_turn and arm in STILL_ARMS)]
    pairs += [(arm, other, False) for arm, other in combinations(ARMS, 2)]
    others = [arms_over_a_cycle(POSERS[name]) for name in kept_out]
    far = [pair for pair in pairs if min(distance(arms_over_a_cycle(ComposedMotion(*pair, "", "")), other)
                                         for other in others) >= NEAR]
    motions = [ComposedMotion(*pair, legs, body) for pair, legs, body in product(far, LEGS, BODIES)]
    return {motion.name: motion for motion in motions}


def list_blends(motions: tuple[str, ...], others: tuple[str, ...]) -> dict[str, Blend]:
    """Return the blends of two of `motions`, and of one of `motions` with one of `others`, by their names,
    except those whose arms come near one of `motions`."""
    arms = [arms_over_a_cycle(POSERS[name]) for name in motions]
    blends = [Blend(*pair) for pair in (*combinations(motions, 2), *product(motions, others))]
    far = [blend for blend in blends
           if min(distance(arms_over_a_cycle(blend), other) for other in arms) >= NEAR]
    return {blend.name: blend for blend in far}


MOTIONS_BY_NAME = list_motions(("dance", "dab", "windmill"))
COMPOSED_MOTIONS = tuple(MOTIONS_BY_NAME)
POSERS |= MOTIONS_BY_NAME
