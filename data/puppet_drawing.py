"""How the puppets of the puppet theatre look: parts and colours.

Shapes: n rows (one puppet or backdrop in one clip), f frames, h w pixels, c RGB in [0, 1]. Lengths are in pixels of a
64x64 frame and scaled to the size asked for.
"""

from dataclasses import dataclass

import numpy as np

from data.puppet_brush import Brush
from data.puppet_motions import Pose

@dataclass(frozen=True)
class Part:
    """A tapered bar fixed to the head or torso; (x, y) from its middle, x forward/right, y up."""

    on: str                  # head, torso
    start: tuple[float, float]
    end: tuple[float, float]
    radii: tuple[float, float]
    colour: tuple | str
    square: bool = False
    behind: bool = False
    sways: bool = True       # shifts forward when the puppet is seen from the side (faces do, hats do not)


@dataclass(frozen=True)
class Look:
    """Colours ("skin" and "hair" are drawn per clip), thickness and extras of a character."""

    top: tuple | str
    legs: tuple | str
    sleeve: tuple | str
    hand: tuple | str
    shoe: tuple | str
    head: tuple | str
    scale: float = 1.0
    head_radius: float = 5.4
    head_square: bool = False
    torso_radii: tuple[float, float] = (4.2, 3.6)         # shoulders, waist
    torso_square: bool = False
    arm_radius: float = 2.0
    leg_radius: float = 2.4
    eyes: tuple | None = (25, 20, 25)
    skirt: tuple | None = None                            # colour of a skirt down to the knees
    parts: tuple[Part, ...] = ()


LEG, TORSO, UPPER_ARM, FOREARM = 17.0, 12.0, 8.4, 9.2     # pixels, adult

RED, WHITE, BLACK, YELLOW = (226, 36, 36), (250, 250, 250), (22, 22, 26), (255, 214, 20)
STEEL, LIME, BROWN, ORANGE = (150, 160, 172), (96, 214, 60), (122, 74, 38), (246, 138, 30)


def cap(colour, brim=0.0, height=3.0):
    """A hat: crown and, if asked, brim."""
    crown = Part("head", (-4.6, 3.4), (4.6, 3.4), (2.4, 2.4), colour, sways=False)
    top = Part("head", (-2.6, 3.4 + height), (2.6, 3.4 + height), (1.8, 1.8), colour, sways=False)
    edge = Part("head", (-4.6 - brim, 2.2), (4.6 + brim, 2.2), (1.1, 1.1), colour, sways=False)
    return (crown, top, edge) if brim else (crown, top)


def ears(colour, spread, radius, y=4.6):
    return tuple(Part("head", (s * spread, y), (s * spread, y), (radius, radius), colour, behind=True, sways=False)
                 for s in (-1, 1))


SHORT_HAIR = (Part("head", (-4.0, 2.9), (4.0, 2.9), (2.6, 2.6), "hair", sways=False),
              Part("head", (-2.4, 4.2), (2.4, 4.2), (2.2, 2.2), "hair", sways=False))
LONG_HAIR = (Part("head", (-4.6, 2.0), (-5.0, -7.0), (2.4, 2.0), "hair", behind=True, sways=False),
             Part("head", (4.6, 2.0), (5.0, -7.0), (2.4, 2.0), "hair", behind=True, sways=False),
             Part("head", (-3.6, 3.9), (3.6, 3.9), (2.5, 2.5), "hair", sways=False))

LOOKS = {
    "man": Look(top=(36, 92, 220), legs=(40, 44, 70), sleeve=(36, 92, 220), hand="skin", shoe=BLACK, head="skin",
                parts=SHORT_HAIR),
    "woman": Look(top=(236, 40, 140), legs="skin", sleeve="skin", hand="skin", shoe=(236, 40, 140), head="skin",
                  torso_radii=(3.7, 3.0), arm_radius=1.8, leg_radius=2.0, skirt=(236, 40, 140), parts=LONG_HAIR),
    "toddler": Look(top=YELLOW, legs=(70, 190, 245), sleeve=YELLOW, hand="skin", shoe=(230, 60, 60), head="skin",
                    scale=0.68, head_radius=7.4, torso_radii=(4.6, 5.0), arm_radius=2.4, leg_radius=3.0,
                    parts=(Part("head", (-1.5, 7.2), (1.5, 7.4), (1.8, 1.2), "hair", sways=False),)),
    "robot": Look(top=STEEL, legs=(104, 112, 126), sleeve=(104, 112, 126), hand=STEEL, shoe=(70, 76, 88), head=STEEL,
                  head_radius=5.2, head_square=True, torso_radii=(5.2, 5.2), torso_square=True, arm_radius=1.9,
                  leg_radius=2.2, eyes=(40, 240, 255),
                  parts=(Part("head", (0, 5), (0, 9.5), (0.7, 0.7), RED, sways=False),
                         Part("head", (0, 9.8), (0, 9.8), (1.6, 1.6), RED, sways=False),
                         Part("torso", (-1.6, 0), (1.6, 0), (1.7, 1.7), (40, 240, 255), square=True))),
    "nurse": Look(top=WHITE, legs=(238, 244, 248), sleeve=WHITE, hand="skin", shoe=(60, 180, 170), head="skin",
                  torso_radii=(4.0, 3.6), skirt=(250, 250, 250),
                  parts=(Part("head", (-3.8, 2.6), (3.8, 2.6), (2.7, 2.7), "hair", sways=False),
                         Part("head", (-4.2, 5.4), (4.2, 5.4), (2.4, 2.4), WHITE, square=True, sways=False),
                         Part("head", (-1.5, 5.5), (1.5, 5.5), (0.7, 0.7), RED, square=True),
                         Part("head", (0, 4.0), (0, 7.0), (0.7, 0.7), RED, square=True),
                         Part("torso", (-2.2, 0.6), (2.2, 0.6), (1.0, 1.0), RED, square=True),
                         Part("torso", (0, -1.6), (0, 2.8), (1.0, 1.0), RED, square=True))),
    "firefighter": Look(top=(190, 26, 22), legs=(190, 26, 22), sleeve=(190, 26, 22), hand=YELLOW, shoe=BLACK,
                        head="skin", torso_radii=(4.8, 4.6), arm_radius=2.3, leg_radius=2.8,
                        parts=(*cap(YELLOW, brim=2.4, height=2.6),
                               Part("torso", (-4.4, -1.2), (4.4, -1.2), (1.2, 1.2), YELLOW, square=True,
                                    sways=False))),
    "clown": Look(top=(150, 50, 210), legs=(250, 130, 20), sleeve=(40, 200, 120), hand=WHITE, shoe=RED, head=WHITE,
                  torso_radii=(4.6, 5.4), leg_radius=3.0, arm_radius=2.4,
                  parts=(Part("head", (-5.6, 2.0), (-5.2, -0.6), (3.2, 2.6), (255, 90, 10), behind=True, sways=False),
                         Part("head", (5.6, 2.0), (5.2, -0.6), (3.2, 2.6), (255, 90, 10), behind=True, sways=False),
                         Part("head", (0, -0.8), (0, -0.8), (1.6, 1.6), RED),
                         Part("torso", (0, 2.2), (0, 2.2), (1.1, 1.1), YELLOW),
                         Part("torso", (0, -2.2), (0, -2.2), (1.1, 1.1), YELLOW))),
    "alien": Look(top=LIME, legs=LIME, sleeve=LIME, hand=LIME, shoe=(60, 160, 40), head=LIME, head_radius=5.6,
                  torso_radii=(3.0, 3.4), arm_radius=1.7, leg_radius=1.9, eyes=None,
                  parts=(Part("head", (-5.0, 2.2), (5.0, 2.2), (4.2, 4.2), LIME, sways=False),
                         Part("head", (-3.0, 6), (-5.0, 9.6), (0.7, 0.7), LIME, sways=False),
                         Part("head", (3.0, 6), (5.0, 9.6), (0.7, 0.7), LIME, sways=False),
                         Part("head", (-3.6, 1.8), (-2.4, 0.2), (1.9, 1.5), BLACK),
                         Part("head", (3.6, 1.8), (2.4, 0.2), (1.9, 1.5), BLACK))),
    "bear": Look(top=BROWN, legs=BROWN, sleeve=BROWN, hand=(92, 54, 26), shoe=(92, 54, 26), head=BROWN,
                 head_radius=6.2, torso_radii=(5.4, 6.4), arm_radius=2.8, leg_radius=3.3, eyes=BLACK,
                 parts=(*ears(BROWN, 5.2, 2.6),
                        Part("head", (-0.8, -2.0), (0.8, -2.0), (2.4, 2.4), (222, 184, 132)),
                        Part("head", (0, -1.2), (0, -1.2), (1.0, 1.0), BLACK),
                        Part("torso", (0, -1.4), (0, 0.2), (3.6, 3.2), (196, 150, 100)))),
    "cat": Look(top=ORANGE, legs=ORANGE, sleeve=ORANGE, hand=WHITE, shoe=WHITE, head=ORANGE, head_radius=5.8,
                torso_radii=(3.6, 4.0), arm_radius=1.9, leg_radius=2.1, eyes=(20, 90, 30),
                parts=(Part("head", (-3.6, 3.2), (-5.2, 9.4), (2.8, 0.3), ORANGE, behind=True, sways=False),
                       Part("head", (3.6, 3.2), (5.2, 9.4), (2.8, 0.3), ORANGE, behind=True, sways=False),
                       Part("head", (-1.2, -2.4), (1.2, -2.4), (1.7, 1.7), WHITE),
                       Part("torso", (-3, -5), (-9, -3), (1.4, 1.4), ORANGE, behind=True, sways=False),
                       Part("torso", (-9, -3), (-10.5, 3), (1.4, 1.2), ORANGE, behind=True, sways=False),
                       Part("torso", (0, -2.4), (0, 1.6), (2.2, 1.8), WHITE))),
}


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
