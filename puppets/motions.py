"""How the puppets of the puppet theatre move: the pose of a puppet in each motion, over time.

Time is counted in cycles: a motion repeats after each whole cycle.

Shapes: n puppets, f frames. Lengths are in pixels of a 64x64 frame unless said otherwise. Angles of limbs:
0 hangs down, pi/2 points right, pi points up.
"""

from dataclasses import dataclass

import numpy as np

MANNERS = 9   # numbers that say in what manner a puppet moves


@dataclass
class Pose:
    """Angles and offsets of n puppets in f frames, each (n f). `sideways` (n 1): seen from the side.

    All values are those of a puppet that faces or acts to the right. A `side` (n 1) of -1 mirrors it.
    """

    sideways: np.ndarray
    side: np.ndarray
    x: np.ndarray            # whole body, pixels
    lift: np.ndarray         # whole body off the ground, pixels
    hip_x: np.ndarray        # pixels
    drop: np.ndarray         # hips lowered, in leg lengths
    lean: np.ndarray         # torso, radians
    nod: np.ndarray          # head, radians
    arms: np.ndarray         # (n f 2 2) [left, right] x [upper arm, forearm], radians
    behind: np.ndarray       # (n 2) [left, right]: the arm passes behind the body; seen from the front only
    feet: np.ndarray         # (n f 2 2) [left, right] x [sideways, up], in leg lengths from below the hips


def pose_puppets(motions: np.ndarray, cycles: np.ndarray, middle: np.ndarray, side: np.ndarray) -> Pose:
    """Return the poses of `motions` (n) at `cycles` (n f). `middle` (n f): cycles since the clip's middle."""
    pose = still_pose(cycles, side)
    for motion in np.unique(motions):
        rows = motions == motion
        POSERS[str(motion)](pose, rows, cycles[rows], middle[rows])
    return pose


def vary_pose(pose: Pose, manner: np.ndarray) -> None:
    """Let puppets move in a manner of their own. `manner` (n MANNERS) from -1 to 1; 0 changes nothing.

    Each arm swings up to a fifth farther or less far, each of its parts is up to 0.2 radians off, and the
    body moves up to two fifths more or less. That is less than half of the least distance between motions
    that a recognizer shall tell apart (NEAR in puppets/composed_motions.py). One arm of three passes behind
    the body.
    """
    farther, offsets, more = 0.2 * manner[:, :2], 0.2 * manner[:, 2:6], 0.4 * manner[:, 6:7]
    swing = pose.arms - pose.arms.mean(axis=1, keepdims=True)                                    # (n f 2 2)
    pose.arms += farther[:, None, :, None] * swing + offsets.reshape(-1, 1, 2, 2)
    for values in (pose.hip_x, pose.lean, pose.nod):                                             # each (n f)
        values += more * values
    pose.behind = manner[:, 7:] > 1 / 3


def still_pose(cycles: np.ndarray, side: np.ndarray) -> Pose:
    """Return a pose of zeros, into which motions are written."""
    sideways, limbs = np.zeros((len(cycles), 1), bool), (*cycles.shape, 2, 2)
    offsets = [np.zeros_like(cycles) for _ in range(6)]
    return Pose(sideways, side[:, None], *offsets, np.zeros(limbs, np.float32),
                np.zeros((len(cycles), 2), bool), np.zeros(limbs, np.float32))


def hang_arms(pose: Pose, rows: np.ndarray, out: float = 0.22) -> None:
    pose.arms[rows, :, 0] = -out
    pose.arms[rows, :, 1] = out
    pose.feet[rows, :, 0, 0] = -0.19
    pose.feet[rows, :, 1, 0] = 0.19


def wave(cycles: np.ndarray, shift: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * (cycles + shift))


def bump(cycles: np.ndarray) -> np.ndarray:
    """Return a smooth curve that is 0 at whole cycles and 1 halfway."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * cycles)


def pose_standing(pose, rows, cycles, middle):
    hang_arms(pose, rows)
    pose.drop[rows] = 0.02 + 0.02 * bump(cycles)


def pose_walking(pose, rows, cycles, middle):
    pose.sideways[rows] = True
    stride = 0.42
    pose.x[rows] = 19 * middle
    for foot, shift in ((0, 0.0), (1, 0.5)):
        pose.feet[rows, :, foot, 0] = stride * wave(cycles, shift + 0.25)
        pose.feet[rows, :, foot, 1] = 0.24 * np.maximum(0, -wave(cycles, shift))
        swing = -0.75 * wave(cycles, shift + 0.25)
        pose.arms[rows, :, foot, 0] = swing
        pose.arms[rows, :, foot, 1] = swing + 0.45
    pose.drop[rows] = 0.03 + 0.05 * np.abs(wave(cycles, 0.25))
    pose.lean[rows] = 0.06


def pose_waving(pose, rows, cycles, middle):
    hang_arms(pose, rows)
    pose.arms[rows, :, 1, 0] = 2.05
    pose.arms[rows, :, 1, 1] = 2.75 + 0.85 * wave(1.25 * cycles)
    pose.drop[rows] = 0.02
    pose.nod[rows] = 0.06 * wave(1.25 * cycles)


def pose_jumping(pose, rows, cycles, middle):
    hang_arms(pose, rows)
    turn = cycles % 1
    flight = np.clip((turn - 0.35) / 0.65, 0, 1)
    height = 4 * flight * (1 - flight)
    crouch = np.where(turn < 0.35, np.sin(np.pi * turn / 0.35), 0)
    pose.lift[rows] = 12 * height
    pose.drop[rows] = 0.02 + 0.30 * crouch
    out = 0.25 + 1.05 * height + 0.2 * crouch
    pose.arms[rows, :, 0] = -out[..., None] * np.array([1, 1.25])
    pose.arms[rows, :, 1] = out[..., None] * np.array([1, 1.25])
    pose.feet[rows, :, :, 1] = 0.30 * height[..., None]                     # knees tucked in the air


def pose_squatting(pose, rows, cycles, middle):
    hang_arms(pose, rows)
    depth = bump(cycles)
    pose.drop[rows] = 0.02 + 0.55 * depth
    out = 0.22 + 1.3 * depth
    pose.arms[rows, :, 0] = -out[..., None]
    pose.arms[rows, :, 1] = out[..., None]
    pose.feet[rows, :, 0, 0] = -0.30
    pose.feet[rows, :, 1, 0] = 0.30


def pose_bowing(pose, rows, cycles, middle):
    pose.sideways[rows] = True
    depth = bump(cycles)
    pose.lean[rows] = 1.4 * depth
    pose.nod[rows] = 0.3 * depth
    pose.hip_x[rows] = -3.0 * depth
    pose.arms[rows, :, :, 0] = 0.12 * depth[..., None]
    pose.arms[rows, :, :, 1] = 0.12 * depth[..., None]
    pose.feet[rows, :, 0, 0] = -0.06
    pose.feet[rows, :, 1, 0] = 0.06
    pose.drop[rows] = 0.02


def pose_jumping_jacks(pose, rows, cycles, middle):
    opened = bump(cycles)
    out = 0.2 + 2.6 * opened
    pose.arms[rows, :, 0] = -out[..., None]
    pose.arms[rows, :, 1] = out[..., None]
    apart = 0.13 + 0.42 * opened
    pose.feet[rows, :, 0, 0] = -apart
    pose.feet[rows, :, 1, 0] = apart
    pose.drop[rows] = 0.02 + 0.13 * opened
    pose.lift[rows] = 2.5 * np.abs(wave(cycles))


def pose_kicking(pose, rows, cycles, middle):
    pose.sideways[rows] = True
    height = bump(cycles) ** 1.3
    pose.feet[rows, :, 1, 0] = 0.08 + 0.85 * height
    pose.feet[rows, :, 1, 1] = 0.95 * height
    pose.feet[rows, :, 0, 0] = -0.08
    pose.lean[rows] = -0.30 * height
    pose.arms[rows, :, 0] = (0.15 + 0.9 * height)[..., None]
    pose.arms[rows, :, 1] = (-0.15 - 0.9 * height)[..., None]
    pose.drop[rows] = 0.02


def pose_dance(pose, rows, cycles, middle):
    hang_arms(pose, rows)
    swing = wave(cycles)
    pose.arms[rows, :, :, 0] = 1.65 * swing[..., None]
    pose.arms[rows, :, :, 1] = 1.85 * wave(cycles, -0.05)[..., None]
    pose.arms[rows, :, 0, 0] -= 0.15
    pose.arms[rows, :, 1, 0] += 0.15
    pose.hip_x[rows] = -4.0 * swing
    pose.lean[rows] = 0.30 * swing
    pose.nod[rows] = 0.15 * swing
    pose.drop[rows] = 0.07 + 0.04 * np.abs(swing)
    pose.feet[rows, :, 0, 0] = -0.28
    pose.feet[rows, :, 1, 0] = 0.28


def pose_dab(pose, rows, cycles, middle):
    hang_arms(pose, rows)
    there = np.clip(1.8 * bump(cycles) - 0.3, 0, 1)
    mix = lambda start, end: start + (end - start) * there
    pose.arms[rows, :, 1, 0] = mix(0.22, 2.15)                               # out and up
    pose.arms[rows, :, 1, 1] = mix(0.22, 2.15)
    pose.arms[rows, :, 0, 0] = mix(-0.22, 1.75)                              # folded across the face
    pose.arms[rows, :, 0, 1] = mix(-0.22, 2.75)
    pose.lean[rows] = mix(0, -0.16)
    pose.nod[rows] = mix(0, 0.55)
    pose.drop[rows] = mix(0.02, 0.14)
    pose.feet[rows, :, 0, 0] = -0.27
    pose.feet[rows, :, 1, 0] = 0.27


def pose_windmill(pose, rows, cycles, middle):
    hang_arms(pose, rows)
    turn = 2 * np.pi * cycles
    pose.arms[rows, :, 0] = turn[..., None]
    pose.arms[rows, :, 1] = turn[..., None] + np.pi
    pose.lean[rows] = 0.07 * wave(cycles)
    pose.drop[rows] = 0.04
    pose.feet[rows, :, 0, 0] = -0.27
    pose.feet[rows, :, 1, 0] = 0.27


POSERS = {
    "standing": pose_standing, "walking": pose_walking, "waving": pose_waving, "jumping": pose_jumping,
    "squatting": pose_squatting, "bowing": pose_bowing, "jumping jacks": pose_jumping_jacks,
    "kicking": pose_kicking, "dance": pose_dance, "dab": pose_dab, "windmill": pose_windmill,
}
