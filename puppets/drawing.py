"""Paints the puppets of the puppet theatre: joints from the pose, and bars between them.

Shapes: n rows (one puppet in one clip), f frames, c RGB in [0, 1]. Points and directions are (n f 2), y down;
lengths are in pixels of a 64x64 frame.
"""

from dataclasses import dataclass

import numpy as np

from puppets.brush import Brush, pair
from puppets.looks import Look, Part
from puppets.motions import Pose

LEG, TORSO, UPPER_ARM, FOREARM = 17.0, 12.0, 8.4, 9.2     # pixels, adult
OUTWARD = (-1, 1)    # direction away from the body, of left and right limbs; mirrored with the puppet


@dataclass(frozen=True)
class Body:
    """One character in its rows: where it stands in every frame, and the colours it is painted with."""

    look: Look
    brush: Brush
    pose: Pose
    colours: dict[str, np.ndarray]   # of "skin" and "hair", (n 1 3)
    scale: np.ndarray                # (n 1), 1 for an adult
    narrow: np.ndarray               # (n 1), how far apart limbs are, 1 when seen from the front
    root_x: np.ndarray               # (n f), x of the middle between the feet
    floor: np.ndarray                # (n f), y of the ground below the feet, higher during a jump
    hips: np.ndarray
    neck: np.ndarray
    head: np.ndarray                 # its middle
    up: np.ndarray                   # from hips to neck
    across: np.ndarray               # from left to right of the torso
    head_up: np.ndarray
    head_across: np.ndarray

    @property
    def side(self) -> np.ndarray:
        return self.pose.side

    def lengths(self, pixels) -> np.ndarray:
        """Return a length given for an adult, (n f 1), to multiply directions by."""
        return (pixels * self.scale)[..., None]

    def tint(self, colour: tuple | str) -> np.ndarray:
        return self.colours[colour] if isinstance(colour, str) else np.array(colour, np.float32) / 255


def draw_puppet(look: Look, brush: Brush, pose: Pose, scale: np.ndarray, x: np.ndarray, ground: np.ndarray,
                skin: np.ndarray, hair: np.ndarray) -> None:
    """Paint one character into its rows, back to front. scale, x, ground: (n 1), skin and hair: (n 3)."""
    body = place_body(look, brush, pose, scale, x, ground, {"skin": skin[:, None], "hair": hair[:, None]})
    sideways, frontal, behind = pose.sideways[:, 0], ~pose.sideways[:, 0], pose.behind
    draw_shadow(body, ground)
    draw_parts(body, [part for part in look.parts if part.behind])
    draw_arm(body, 0, only=sideways, shade=0.8)
    for i in np.flatnonzero(behind.any(axis=0)):
        draw_arm(body, i, only=frontal & behind[:, i])
    draw_leg(body, 0, shade=0.88)
    draw_leg(body, 1)
    draw_torso(body)
    draw_parts(body, [part for part in look.parts if part.on == "torso" and not part.behind])
    draw_head(body)
    draw_parts(body, [part for part in look.parts if part.on == "head" and not part.behind])
    draw_arm(body, 0, only=frontal & ~behind[:, 0])
    draw_arm(body, 1, only=sideways | ~behind[:, 1])


def place_body(look: Look, brush: Brush, pose: Pose, scale: np.ndarray, x: np.ndarray, ground: np.ndarray,
               colours: dict[str, np.ndarray]) -> Body:
    """Return where the parts of a character are in its pose."""
    side, root_x, floor = pose.side, x + pose.side * pose.x, ground - pose.lift
    hips = pair(root_x + side * pose.hip_x * scale, floor - scale * LEG * (0.995 - pose.drop) - scale)
    up, across = axes_of(pose.lean, side)
    head_up, head_across = axes_of(pose.lean + pose.nod, side)
    neck = hips + up * (scale * TORSO)[..., None]
    head = neck + head_up * (scale * (look.head_radius + 0.6))[..., None]
    narrow = np.where(pose.sideways, 0.35, 1.0)
    return Body(look, brush, pose, colours, scale, narrow, root_x, floor, hips, neck, head, up, across,
                head_up, head_across)


def axes_of(angle: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the directions up and across of a body part that leans forward by `angle` (n f), radians."""
    return pair(side * np.sin(angle), -np.cos(angle)), pair(np.cos(angle), side * np.sin(angle))


def draw_shadow(body: Body, ground: np.ndarray) -> None:
    shrinking = 1 - 0.03 * np.clip(body.pose.lift, 0, 12)
    reach = 5 * body.scale * shrinking
    body.brush.bar(pair(body.root_x - reach, ground + 1), pair(body.root_x + reach, ground + 1),
                   1.7 * body.scale, 1.7 * body.scale, np.zeros(3), opacity=0.28)


def draw_parts(body: Body, parts: list[Part]) -> None:
    """Paint parts that are fixed to head or torso."""
    for part in parts:
        if part.on == "head":
            middle, right, above, forward = body.head, body.head_across, body.head_up, 1.8
        else:
            middle, right, above, forward = (body.hips + body.neck) / 2, body.across, body.up, 1.2
        shift = np.where(body.pose.sideways & part.sways, forward, 0.0)
        squeeze = np.where(body.pose.sideways & part.sways, 0.6, 1.0)
        ends = [middle + right * body.lengths(body.side * (squeeze * x + shift)) + above * body.lengths(y)
                for x, y in (part.start, part.end)]
        body.brush.bar(*ends, part.radii[0] * body.scale, part.radii[1] * body.scale, body.tint(part.colour),
                       square=part.square)


def draw_arm(body: Body, i: int, only: np.ndarray, shade: float = 1.0) -> None:
    """Paint arm `i` in the rows of `only` (n)."""
    look, brush = body.look, body.brush
    out = body.side * OUTWARD[i] * body.narrow * (look.torso_radii[0] + 0.3)
    shoulder = body.neck + body.across * body.lengths(out) - body.up * body.lengths(1.6)
    upper, lower = (pair(body.side * np.sin(body.pose.arms[:, :, i, j]), np.cos(body.pose.arms[:, :, i, j]))
                    for j in (0, 1))
    elbow = shoulder + upper * body.lengths(UPPER_ARM)
    wrist = elbow + lower * body.lengths(FOREARM)
    radius, sleeve = look.arm_radius * body.scale, shade * body.tint(look.sleeve)
    brush.bar(shoulder, elbow, radius, radius, sleeve, only=only)
    brush.bar(elbow, wrist, radius, 0.9 * radius, sleeve, only=only)
    brush.bar(wrist, wrist, 1.15 * radius, 1.15 * radius, shade * body.tint(look.hand), only=only)


def draw_leg(body: Body, i: int, shade: float = 1.0) -> None:
    look, brush, pose, scale, out = body.look, body.brush, body.pose, body.scale, body.side * OUTWARD[i]
    hip = body.hips + pair(out * body.narrow * 2.6 * scale, 0 * scale)
    foot = pair(body.root_x + body.side * scale * LEG * pose.feet[:, :, i, 0] + out * body.narrow * 0.4,
                body.floor - scale * LEG * pose.feet[:, :, i, 1] - scale)
    knee, foot = bend_knee(hip, foot, LEG * scale, np.where(pose.sideways, body.side, out))
    toe = foot + pair(np.where(pose.sideways, body.side * 2.4, out * 1.2) * scale, 0 * scale)
    radius, trousers = look.leg_radius * scale, shade * body.tint(look.legs)
    brush.bar(hip, knee, radius, 0.95 * radius, trousers)
    brush.bar(knee, foot, 0.95 * radius, 0.85 * radius, trousers)
    brush.bar(foot, toe, 0.9 * radius, 0.8 * radius, shade * body.tint(look.shoe))


def draw_torso(body: Body) -> None:
    """Paint the torso, and below it the skirt, if any. The skirt widens with the distance of the feet."""
    look, brush, pose, scale = body.look, body.brush, body.pose, body.scale
    if look.skirt:
        hem = np.maximum(6.2, 3.4 + 0.55 * LEG * np.abs(pose.feet[:, :, 1, 0] - pose.feet[:, :, 0, 0]))
        waist = body.hips + body.up * body.lengths(2)
        knees = body.hips - body.up * body.lengths(7.0) * np.array([0, 1])    # straight below the hips
        brush.bar(waist, knees, look.torso_radii[1] * scale, np.minimum(hem, 8.5) * scale,
                  body.tint(look.skirt), square=True)
    girth = np.where(pose.sideways, 0.85, 1) * scale
    brush.bar(body.neck - body.up * body.lengths(2.6), body.hips, girth * look.torso_radii[0],
              girth * look.torso_radii[1], body.tint(look.top), square=look.torso_square)


def draw_head(body: Body) -> None:
    look, radius = body.look, body.look.head_radius * body.scale
    reach = body.head_up * (radius * (0.95 if look.head_square else 0.01))[..., None]
    body.brush.bar(body.head - reach, body.head + reach, radius, radius, body.tint(look.head),
                   square=look.head_square)
    if look.eyes:
        draw_parts(body, [Part("head", (2.1 * sign, 0.4), (2.1 * sign, 0.1), (0.95, 0.95), look.eyes)
                          for sign in (-1, 1)])


def bend_knee(hip: np.ndarray, foot: np.ndarray, length: np.ndarray, bend: np.ndarray):
    """Return knee and foot of a leg of two bones. A foot out of reach is pulled to the end of the leg."""
    reach = foot - hip
    distance = np.linalg.norm(reach, axis=-1)
    far = np.minimum(distance, 0.995 * length)
    direction = reach / np.maximum(distance, 1e-6)[..., None]
    out = np.sqrt(np.maximum((length / 2) ** 2 - (far / 2) ** 2, 0)) * bend
    across = np.stack([direction[..., 1], -direction[..., 0]], axis=-1)
    return hip + direction * (far / 2)[..., None] + across * out[..., None], hip + direction * far[..., None]
