"""Motions that nobody has a name for: each a fixed, random way to swing arms, hips, legs and torso.

The base learns them beside the everyday motions, under made-up words ("a robot doing the bazu"), so that it
has seen limbs go everywhere, and that new words name new motions: with eight motions alone it had never seen
an arm cross the body, and could not be taught a motion that needs it. They are no more than it can learn to
tell apart by their names. No measurement asks for them. What comes near a kept-out motion is drawn again.

Shapes: n puppets, f frames, as in data/puppet_motions.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.puppet_motions import POSERS, Pose, hang_arms, still_pose, wave

SEED, NUM = 29, 32
NEAR = 0.8           # radians: arms that stay closer than this to a kept-out motion's come near it
PHASES = 16          # of a cycle, in which motions are compared


@dataclass(frozen=True)
class Swing:
    """value = center + size * sin(2 pi (rate * cycles + shift))"""

    center: float
    size: float
    rate: float = 1
    shift: float = 0

    def __call__(self, cycles: np.ndarray) -> np.ndarray:
        return self.center + self.size * wave(self.rate * cycles, self.shift)


@dataclass(frozen=True)
class FreeMotion:
    """How one of them goes; lengths and angles as in Pose."""

    sideways: bool
    arms: tuple[tuple[Swing, Swing], tuple[Swing, Swing]]   # [left, right] x [upper arm, elbow]
    steps: tuple[Swing, Swing]                              # feet up, [left, right], where above 0
    apart: Swing                                            # feet sideways
    hip_x: Swing
    drop: Swing
    lean: Swing
    nod: Swing
    lift: Swing                                             # where above 0
    travel: float                                           # pixels a cycle

    def __call__(self, pose: Pose, rows: np.ndarray, cycles: np.ndarray, middle: np.ndarray) -> None:
        hang_arms(pose, rows)
        pose.sideways[rows] = self.sideways
        for arm, (upper, elbow) in enumerate(self.arms):
            pose.arms[rows, :, arm, 0] = upper(cycles)
            pose.arms[rows, :, arm, 1] = upper(cycles) + elbow(cycles)
        for foot, out in ((0, -1), (1, 1)):
            pose.feet[rows, :, foot, 0] = out * self.apart(cycles)
            pose.feet[rows, :, foot, 1] = np.maximum(0, self.steps[foot](cycles))
        pose.hip_x[rows], pose.lean[rows] = self.hip_x(cycles), self.lean(cycles)
        pose.nod[rows] = self.nod(cycles)
        pose.drop[rows] = np.maximum(0.02, self.drop(cycles))
        pose.lift[rows] = np.maximum(0, self.lift(cycles))
        pose.x[rows] = self.travel * middle


def draw_motion(rng: np.random.Generator) -> FreeMotion:
    """Draw how a motion goes: arms together, mirrored or each by itself; the rest often still."""
    def often(chance: float, size: float) -> float:
        return rng.uniform(0.3, 1) * size if rng.random() < chance else 0.0

    def swing(center: float, size: float) -> Swing:
        return Swing(center, size, float(rng.choice([1, 1, 1, 2])), rng.random())

    def arm() -> tuple[Swing, Swing]:
        upper = swing(rng.uniform(-1.0, 2.7), often(0.85, 1.7))
        bend = rng.uniform(-0.3, 1.6)
        return upper, Swing(bend, often(0.5, 0.8), upper.rate, rng.random())

    right, kind = arm(), rng.integers(3)
    left = {0: right, 1: tuple(Swing(-s.center, -s.size, s.rate, s.shift) for s in right),
            2: tuple(Swing(-s.center, -s.size, s.rate, s.shift) for s in arm())}[int(kind)]
    step = often(0.35, 0.6)
    both = rng.random() < 0.6
    shift = rng.random()
    return FreeMotion(
        sideways=bool(rng.random() < 0.3), arms=(left, right),
        steps=(Swing(0, step, 1, shift), Swing(0, step * both, 1, shift + 0.5)),
        apart=swing(rng.uniform(0.08, 0.32), often(0.25, 0.15)), hip_x=swing(0, often(0.5, 4.5)),
        drop=swing(rng.uniform(0.02, 0.3), often(0.5, 0.2)),
        lean=swing(rng.uniform(-0.1, 0.15), often(0.5, 0.4)),
        nod=swing(0, often(0.4, 0.3)), lift=swing(-2, often(0.3, 11)), travel=12.0 * (rng.random() < 0.1))


def made_up_name(rng: np.random.Generator) -> str:
    """Two syllables, such as bazu."""
    return "".join(rng.choice(list("bfgklmprtvz")) + rng.choice(list("aeiou")) for _ in range(2))


def arms_over_a_cycle(motion: Callable) -> np.ndarray:
    """Angles of the arms (PHASES 2 2) in a motion, one of POSERS."""
    cycles = np.linspace(0, 1, PHASES, endpoint=False, dtype=np.float32)[None]
    pose = still_pose(cycles, np.ones(1, np.float32))
    motion(pose, slice(None), cycles, cycles * 0)
    return pose.arms[0]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the angles between arms (PHASES 2 2), radians, at the phase, and mirrored or not,
    where they are nearest."""
    turns = np.stack([np.roll(x, shift, axis=0) for x in (b, -b[:, ::-1]) for shift in range(PHASES)])
    off = np.abs((a - turns + np.pi) % (2 * np.pi) - np.pi)                                 # (32 PHASES 2 2)
    return float(np.sqrt((off**2).mean(axis=(1, 2, 3)).min()))


def draw_motions(kept_out: tuple[str, ...]) -> dict[str, FreeMotion]:
    """Return NUM motions by their names, none of which comes near one that is `kept_out`."""
    rng, motions = np.random.default_rng(SEED), {}
    others = [arms_over_a_cycle(POSERS[name]) for name in kept_out]
    while len(motions) < NUM:
        name, motion = made_up_name(rng), draw_motion(rng)
        arms = arms_over_a_cycle(motion)
        if name not in motions and min(distance(arms, other) for other in others) >= NEAR:
            motions[name] = motion
    return motions


MOTIONS_BY_NAME = draw_motions(("dance", "dab", "windmill"))
FREE_MOTIONS = tuple(MOTIONS_BY_NAME)
POSERS |= MOTIONS_BY_NAME
