"""Motions that a caption names by their parts: each arm, the legs, the body.

An example is "a robot moving with one arm up and one arm circling, marching and swaying". The base learns
such motions beside the everyday ones, so that it sees each limb go everywhere, apart from the other limbs.
Eight whole motions alone never showed an arm that crosses the body, and the base could not be taught a
motion that needs it. With composed motions a new motion combines parts that the base knows, as for a large
model. There are so many pairs of arms (1,388) that a base cannot learn them one by one, but has to learn what
each arm does.

No measurement asks for these motions. A combination is left out where both arms do what the arms of a
kept-out motion do, at the same time or not.

Shapes: n puppets, f frames, as in puppets/motions.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, permutations, product

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


# Upper arm and elbow, radians: 0 hangs down, pi/2 points away from the body, pi up. Below 0 the arm crosses
# the body.
STILL_ARMS = {
    "hanging": (Swing(0.22), Swing()),
    "low": (Swing(0.75), Swing()),
    "out": (Swing(1.57), Swing()),
    "high": (Swing(2.25), Swing()),
    "up": (Swing(2.8), Swing()),
    "bent": (Swing(0.85), Swing(-1.5)),
    "crossed": (Swing(-0.75), Swing(-0.9)),
    "saluting": (Swing(1.9), Swing(1.6)),
}
MOVING_ARMS = {
    "swinging": (Swing(0, 1.5), Swing(0, 0.2)),
    "scooping": (Swing(0, 1.5, 0.5), Swing(0, 0.2, 0.5)),
    "sawing": (Swing(0, 1.5, 0.25), Swing()),
    "paddling": (Swing(0.5, 0.9, 0.25), Swing()),
    "sweeping": (Swing(0.8, 1.3), Swing()),
    "digging": (Swing(0.6, 1.1, 0.5), Swing()),
    "rocking": (Swing(1.57, 0.8), Swing()),
    "chopping": (Swing(1.9, 0.9, 0.5), Swing()),
    "flapping": (rise(0.5, 1.9), Swing()),
    "reaching": (rise(0.2, 2.5), Swing()),
    "lifting": (rise(1.4, 3.0), Swing()),
    "dropping": (rise(2.9, 0.3), Swing()),
    "lowering": (rise(1.7, 0.2), Swing()),
    "crossing": (rise(1.2, -1.2), Swing()),
    "throwing": (rise(2.6, -0.6), Swing()),
    "folding": (rise(0.2, -1.7), rise(0, -1.0)),
    "hugging": (rise(1.6, -0.5), rise(0, -1.3)),
    "punching": (Swing(1.4), rise(-2.3, 0)),
    "curling": (Swing(1.5), rise(0, 2.2)),
    "tapping": (rise(0.3, 1.9), rise(0, 1.8)),
    "waving": (Swing(2.05), Swing(0.7, 0.85)),
    "pumping": (Swing(0.5), Swing(1.5, 0.9)),
    "fanning": (Swing(1.1), Swing(1.0, 0.9)),
    "stirring": (Swing(-0.4), Swing(-0.6, 0.9)),
    "dangling": (Swing(1.5), Swing(-1.5, 0.8)),
    "climbing": (Swing(2.1, 0.7, 0.25), Swing(0.4, 0.7, 0.25)),
    "circling": (Swing(turns=1), Swing()),
    "rolling": (Swing(turns=-1), Swing()),
    "wheeling": (Swing(np.pi, turns=1), Swing()),
    "winding": (Swing(np.pi, turns=-1), Swing()),
}
ARMS = STILL_ARMS | MOVING_ARMS
LEGS = ("", "marching", "wide", "bouncing", "hopping", "kneeling", "stepping")
BODIES = ("", "swaying", "nodding", "leaning", "gliding")


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
        elif self.legs == "hopping":
            pose.lift[rows] = 6 * np.abs(wave(cycles))
        elif self.legs == "kneeling":
            pose.drop[rows] = 0.4
        elif self.legs == "stepping":
            pose.feet[rows, :, 1, 0] = rise(0.19, 0.75)(cycles)
        if self.body == "swaying":
            pose.hip_x[rows], pose.lean[rows] = -4 * wave(cycles), 0.3 * wave(cycles)
        elif self.body == "nodding":
            pose.nod[rows] = 0.35 * wave(cycles)
        elif self.body == "leaning":
            pose.lean[rows] = rise(0, 0.4)(cycles)
        elif self.body == "gliding":
            pose.x[rows] = 5 * wave(cycles)


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


def mirrored(arms: np.ndarray) -> np.ndarray:
    """Return the angles (PHASES 2 2) of the arms of a mirrored motion."""
    return -arms[:, ::-1]


def arm_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return how far two arms (PHASES 2) are apart at the phase at which they are nearest: root mean square
    of angles, in radians."""
    turns = np.stack([np.roll(b, shift, axis=0) for shift in range(PHASES)])
    off = np.abs((a - turns + np.pi) % (2 * np.pi) - np.pi)                              # (PHASES PHASES 2)
    return float(np.sqrt((off**2).mean(axis=(1, 2))).min())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return how far the arms of two motions (PHASES 2 2) are apart: arm_distance of the farther arm. The
    second motion is mirrored if that brings it nearer."""
    return min(max(arm_distance(a[:, side], other[:, side]) for side in (0, 1))
               for other in (b, mirrored(b)))


def list_motions(kept_out: tuple[str, ...]) -> dict[str, ComposedMotion]:
    """Return all motions by their names, except those whose arms come near a motion of `kept_out`."""
    pairs = [(arm, arm, in_turn) for arm in ARMS for in_turn in (False, True)
             if not (in_turn and arm in STILL_ARMS)]
    pairs += [(arm, other, False) for arm, other in permutations(ARMS, 2)]
    others = [arms_over_a_cycle(POSERS[name]) for name in kept_out]
    others += [mirrored(arms) for arms in others]
    # A pair is near a motion if both its arms are. Comparing 38 single arms is quicker than 1,474 pairs.
    near = {}
    for arm in ARMS:
        both = arms_over_a_cycle(ComposedMotion(arm, arm, False, "", ""))
        for side in (0, 1):   # left, right
            near[arm, side] = {i for i, other in enumerate(others)
                               if arm_distance(both[:, side], other[:, side]) < NEAR}
    # a caption names the right arm first
    far = [(arm, other_arm, in_turn) for arm, other_arm, in_turn in pairs
           if near[arm, 1].isdisjoint(near[other_arm, 0])]
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
