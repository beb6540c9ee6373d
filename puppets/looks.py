"""How the characters of the puppet theatre look: colours, thickness, and parts fixed to head and torso.

Lengths are in pixels of a 64x64 frame, colours RGB of 0 to 255.
"""

from dataclasses import dataclass


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
    sways: bool = True       # shifts forward when seen from the side, as faces do and hats do not


@dataclass(frozen=True)
class Look:
    """Colours, thickness and extras of a character. "skin" and "hair" are colours drawn for each clip."""

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


RED, WHITE, BLACK, YELLOW = (226, 36, 36), (250, 250, 250), (22, 22, 26), (255, 214, 20)
STEEL, LIME, BROWN, ORANGE = (150, 160, 172), (96, 214, 60), (122, 74, 38), (246, 138, 30)


def cap(colour, brim=0.0, height=3.0):
    """Return a hat, with a brim if `brim` is above 0."""
    crown = Part("head", (-4.6, 3.4), (4.6, 3.4), (2.4, 2.4), colour, sways=False)
    top = Part("head", (-2.6, 3.4 + height), (2.6, 3.4 + height), (1.8, 1.8), colour, sways=False)
    edge = Part("head", (-4.6 - brim, 2.2), (4.6 + brim, 2.2), (1.1, 1.1), colour, sways=False)
    return (crown, top, edge) if brim else (crown, top)


def ears(colour, spread, radius, y=4.6):
    return tuple(Part("head", (sign * spread, y), (sign * spread, y), (radius, radius), colour, behind=True,
                      sways=False) for sign in (-1, 1))


SHORT_HAIR = (Part("head", (-4.0, 2.9), (4.0, 2.9), (2.6, 2.6), "hair", sways=False),
              Part("head", (-2.4, 4.2), (2.4, 4.2), (2.2, 2.2), "hair", sways=False))
LONG_HAIR = (Part("head", (-4.6, 2.0), (-5.0, -7.0), (2.4, 2.0), "hair", behind=True, sways=False),
             Part("head", (4.6, 2.0), (5.0, -7.0), (2.4, 2.0), "hair", behind=True, sways=False),
             Part("head", (-3.6, 3.9), (3.6, 3.9), (2.5, 2.5), "hair", sways=False))

LOOKS = {
    "man": Look(
        top=(240, 240, 244), legs=(40, 44, 70), sleeve=(36, 92, 220), hand="skin", shoe=BLACK, head="skin",
        parts=SHORT_HAIR),
    "woman": Look(
        top=(236, 40, 140), legs="skin", sleeve="skin", hand="skin", shoe=(236, 40, 140), head="skin",
        torso_radii=(3.7, 3.0), leg_radius=2.0, skirt=(236, 40, 140), parts=LONG_HAIR),
    "toddler": Look(
        top=YELLOW, legs=(70, 190, 245), sleeve=(230, 60, 60), hand="skin", shoe=(230, 60, 60), head="skin",
        scale=0.78, head_radius=6.8, torso_radii=(4.6, 5.0), arm_radius=2.6, leg_radius=3.0,
        parts=(Part("head", (-1.5, 7.2), (1.5, 7.4), (1.8, 1.2), "hair", sways=False),)),
    "robot": Look(
        top=STEEL, legs=(104, 112, 126), sleeve=RED, hand=STEEL, shoe=(70, 76, 88), head=STEEL,
        head_radius=5.2, head_square=True, torso_radii=(5.2, 5.2), torso_square=True,
        leg_radius=2.2, eyes=(40, 240, 255),
        parts=(Part("head", (0, 5), (0, 9.5), (0.7, 0.7), RED, sways=False),
               Part("head", (0, 9.8), (0, 9.8), (1.6, 1.6), RED, sways=False),
               Part("torso", (-1.6, 0), (1.6, 0), (1.7, 1.7), (40, 240, 255), square=True))),
    "nurse": Look(
        top=WHITE, legs=(238, 244, 248), sleeve=(60, 180, 170), hand="skin", shoe=(60, 180, 170), head="skin",
        torso_radii=(4.0, 3.6), skirt=(250, 250, 250),
        parts=(Part("head", (-3.8, 2.6), (3.8, 2.6), (2.7, 2.7), "hair", sways=False),
               Part("head", (-4.2, 5.4), (4.2, 5.4), (2.4, 2.4), WHITE, square=True, sways=False),
               Part("head", (-1.5, 5.5), (1.5, 5.5), (0.7, 0.7), RED, square=True),
               Part("head", (0, 4.0), (0, 7.0), (0.7, 0.7), RED, square=True),
               Part("torso", (-2.2, 0.6), (2.2, 0.6), (1.0, 1.0), RED, square=True),
               Part("torso", (0, -1.6), (0, 2.8), (1.0, 1.0), RED, square=True))),
    "firefighter": Look(
        top=(74, 66, 72), legs=(190, 26, 22), sleeve=(206, 30, 24), hand=YELLOW, shoe=BLACK,
        head="skin", torso_radii=(4.8, 4.6), arm_radius=2.3, leg_radius=2.8,
        parts=(*cap(YELLOW, brim=2.4, height=2.6),
               Part("torso", (-4.4, -1.2), (4.4, -1.2), (1.2, 1.2), YELLOW, square=True, sways=False))),
    "clown": Look(
        top=(150, 50, 210), legs=(250, 130, 20), sleeve=(40, 200, 120), hand=WHITE, shoe=RED, head=WHITE,
        torso_radii=(4.6, 5.4), leg_radius=3.0, arm_radius=2.4,
        parts=(Part("head", (-5.6, 2.0), (-5.2, -0.6), (3.2, 2.6), (255, 90, 10), behind=True, sways=False),
               Part("head", (5.6, 2.0), (5.2, -0.6), (3.2, 2.6), (255, 90, 10), behind=True, sways=False),
               Part("head", (0, -0.8), (0, -0.8), (1.6, 1.6), RED),
               Part("torso", (0, 2.2), (0, 2.2), (1.1, 1.1), YELLOW),
               Part("torso", (0, -2.2), (0, -2.2), (1.1, 1.1), YELLOW))),
    "alien": Look(
        top=(44, 128, 60), legs=LIME, sleeve=LIME, hand=LIME, shoe=(60, 160, 40), head=LIME, head_radius=5.6,
        torso_radii=(3.0, 3.4), leg_radius=2.0, eyes=None,
        parts=(Part("head", (-5.0, 2.2), (5.0, 2.2), (4.2, 4.2), LIME, sways=False),
               Part("head", (-3.0, 6), (-5.0, 9.6), (0.7, 0.7), LIME, sways=False),
               Part("head", (3.0, 6), (5.0, 9.6), (0.7, 0.7), LIME, sways=False),
               Part("head", (-3.6, 1.8), (-2.4, 0.2), (1.9, 1.5), BLACK),
               Part("head", (3.6, 1.8), (2.4, 0.2), (1.9, 1.5), BLACK))),
    "bear": Look(
        top=(176, 124, 78), legs=BROWN, sleeve=BROWN, hand=(92, 54, 26), shoe=(92, 54, 26), head=BROWN,
        head_radius=6.2, torso_radii=(5.4, 6.4), arm_radius=2.8, leg_radius=3.3, eyes=BLACK,
        parts=(*ears(BROWN, 5.2, 2.6),
               Part("head", (-0.8, -2.0), (0.8, -2.0), (2.4, 2.4), (222, 184, 132)),
               Part("head", (0, -1.2), (0, -1.2), (1.0, 1.0), BLACK),
               Part("torso", (0, -1.4), (0, 0.2), (3.6, 3.2), (196, 150, 100)))),
    "cat": Look(
        top=(252, 206, 144), legs=ORANGE, sleeve=ORANGE, hand=WHITE, shoe=WHITE, head=ORANGE, head_radius=5.8,
        torso_radii=(3.6, 4.0), leg_radius=2.1, eyes=(20, 90, 30),
        parts=(Part("head", (-3.6, 3.2), (-5.2, 9.4), (2.8, 0.3), ORANGE, behind=True, sways=False),
               Part("head", (3.6, 3.2), (5.2, 9.4), (2.8, 0.3), ORANGE, behind=True, sways=False),
               Part("head", (-1.2, -2.4), (1.2, -2.4), (1.7, 1.7), WHITE),
               Part("torso", (-3, -5), (-9, -3), (1.4, 1.4), ORANGE, behind=True, sways=False),
               Part("torso", (-9, -3), (-10.5, 3), (1.4, 1.2), ORANGE, behind=True, sways=False),
               Part("torso", (0, -2.4), (0, 1.6), (2.2, 1.8), WHITE))),
}
