"""Paints the puppets of the puppet theatre: joints from the pose, and bars between them.

Shapes: n rows (one puppet in one clip), f frames, h w pixels, c RGB in [0, 1]. Lengths are in pixels of a 64x64
frame and scaled to the size asked for.
"""

import numpy as np

from data.puppet_brush import Brush
from data.puppet_looks import Look, Part
from data.puppet_motions import Pose

LEG, TORSO, UPPER_ARM, FOREARM = 17.0, 12.0, 8.4, 9.2     # pixels, adult


def draw_puppet(look: Look, brush: Brush, pose: Pose, scale: np.ndarray, x: np.ndarray, ground: np.ndarray,
                skin: np.ndarray, hair: np.ndarray) -> None:
    """Paint one character into its rows, back to front; scale, x, ground are (n 1), skin and hair (n 3)."""
    colours = {"skin": skin[:, None], "hair": hair[:, None]}
    tint = lambda colour: colours[colour] if isinstance(colour, str) else np.array(colour, np.float32) / 255
    side, narrow = pose.side, np.where(pose.sideways, 0.35, 1.0)
    at = lambda px, py: np.stack(np.broadcast_arrays(px, py), axis=-1).astype(np.float32)            # (n f 2)

    root_x = x + side * pose.x
    floor = ground - pose.lift
    hips = at(root_x + side * pose.hip_x * scale, floor - scale * LEG * (0.995 - pose.drop) - scale)
    up = at(side * np.sin(pose.lean), -np.cos(pose.lean))
    across = at(np.cos(pose.lean), side * np.sin(pose.lean))
    neck = hips + up * (scale * TORSO)[..., None]
    head_up = at(side * np.sin(pose.lean + pose.nod), -np.cos(pose.lean + pose.nod))
    head_across = at(np.cos(pose.lean + pose.nod), side * np.sin(pose.lean + pose.nod))
    head = neck + head_up * (scale * (look.head_radius + 0.6))[..., None]

    shadow = 1 - 0.03 * np.clip(pose.lift, 0, 12)
    brush.bar(at(root_x - 5 * scale * shadow, ground + 1), at(root_x + 5 * scale * shadow, ground + 1),
              1.7 * scale, 1.7 * scale, np.zeros(3), opacity=0.28)

    def limb(start, angle, length):
        direction = at(side * np.sin(angle), np.cos(angle))
        return start + direction * (length * scale)[..., None]

    def arm(i, only, shade):
        # a puppet that acts to the left is the mirror image: its limb 0 is the one on the right
        sign = (-1, 1)[i]
        shoulder = neck + across * (side * sign * narrow * (look.torso_radii[0] + 0.3) * scale)[..., None] \
            - up * (1.6 * scale)[..., None]
        elbow = limb(shoulder, pose.arms[:, :, i, 0], UPPER_ARM)
        wrist = limb(elbow, pose.arms[:, :, i, 1], FOREARM)
        radius = look.arm_radius * scale
        brush.bar(shoulder, elbow, radius, radius, shade * tint(look.sleeve), only=only)
        brush.bar(elbow, wrist, radius, 0.9 * radius, shade * tint(look.sleeve), only=only)
        brush.bar(wrist, wrist, 1.15 * radius, 1.15 * radius, shade * tint(look.hand), only=only)

    def leg(i, shade):
        sign = (-1, 1)[i]
        hip = hips + at(side * sign * narrow * 2.6 * scale, 0 * scale)
        foot = at(root_x + side * scale * LEG * pose.feet[:, :, i, 0] + side * sign * narrow * 0.4,
                  floor - scale * LEG * pose.feet[:, :, i, 1] - scale)
        bend = np.where(pose.sideways, side, side * sign)
        knee, foot = bend_knee(hip, foot, LEG * scale, bend)
        radius = look.leg_radius * scale
        brush.bar(hip, knee, radius, 0.95 * radius, shade * tint(look.legs))
        brush.bar(knee, foot, 0.95 * radius, 0.85 * radius, shade * tint(look.legs))
        toe = foot + at(np.where(pose.sideways, side * 2.4, side * sign * 1.2) * scale, 0 * scale)
        brush.bar(foot, toe, 0.9 * radius, 0.8 * radius, shade * tint(look.shoe))

    def fixed(part):
        if part.on == "head":
            middle, right, above, forward = head, head_across, head_up, 1.8
        else:
            middle, right, above, forward = (hips + neck) / 2, across, up, 1.2
        shift = np.where(pose.sideways & part.sways, forward, 0.0)
        squeeze = np.where(pose.sideways & part.sways, 0.6, 1.0)
        ends = [middle + right * (side * (squeeze * px + shift) * scale)[..., None] + above * (py * scale)[..., None]
                for px, py in (part.start, part.end)]
        brush.bar(*ends, part.radii[0] * scale, part.radii[1] * scale, tint(part.colour), square=part.square)

    sideways, frontal = pose.sideways[:, 0], ~pose.sideways[:, 0]
    for part in look.parts:
        if part.behind:
            fixed(part)
    arm(0, sideways, 0.8)
    leg(0, 0.88)
    leg(1, 1.0)
    if look.skirt:
        hem = np.maximum(6.2, 3.4 + 0.55 * LEG * np.abs(pose.feet[:, :, 1, 0] - pose.feet[:, :, 0, 0]))
        brush.bar(hips + up * (2 * scale)[..., None], hips - up * (7.0 * scale)[..., None] * np.array([0, 1]),
                  look.torso_radii[1] * scale, np.minimum(hem, 8.5) * scale, tint(look.skirt), square=True)
    girth = np.where(pose.sideways, 0.85, 1) * scale
    brush.bar(neck - up * (2.6 * scale)[..., None], hips, girth * look.torso_radii[0], girth * look.torso_radii[1],
              tint(look.top), square=look.torso_square)
    for part in look.parts:
        if part.on == "torso" and not part.behind:
            fixed(part)
    reach = look.head_radius * scale * (0.95 if look.head_square else 0.01)
    brush.bar(head - head_up * reach[..., None], head + head_up * reach[..., None], look.head_radius * scale,
              look.head_radius * scale, tint(look.head), square=look.head_square)
    if look.eyes:
        for sign in (-1, 1):
            fixed(Part("head", (2.1 * sign, 0.4), (2.1 * sign, 0.1), (0.95, 0.95), look.eyes))
    for part in look.parts:
        if part.on == "head" and not part.behind:
            fixed(part)
    arm(0, frontal, 1.0)
    arm(1, sideways | frontal, 1.0)


def bend_knee(hip: np.ndarray, foot: np.ndarray, length: np.ndarray, bend: np.ndarray):
    """Knee and foot of a two-bone leg; a foot out of reach is pulled to where the leg ends."""
    reach = foot - hip
    distance = np.linalg.norm(reach, axis=-1)
    far = np.minimum(distance, 0.995 * length)
    direction = reach / np.maximum(distance, 1e-6)[..., None]
    out = np.sqrt(np.maximum((length / 2) ** 2 - (far / 2) ** 2, 0)) * bend
    across = np.stack([direction[..., 1], -direction[..., 0]], axis=-1)
    return hip + direction * (far / 2)[..., None] + across * out[..., None], hip + direction * far[..., None]
