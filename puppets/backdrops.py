"""The places of the puppet theatre. Lengths are in pixels of a 64x64 frame; n rows, one backdrop each."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from puppets.brush import Brush, pair


class Tools(NamedTuple):
    """What places are painted with. Each place takes the tools it needs."""

    box: Callable          # left, top, right, bottom, colour
    disc: Callable         # x, y, radius, colour
    bar: Callable          # x0, y0, x1, y1, r0, r1, colour, square
    rgb: Callable          # red, green, blue up to 255 -> colour in each clip's own light (n 1 3)
    horizon: np.ndarray    # (n 1), y at which the ground begins
    b: np.ndarray          # (n 1) in [-1, 1], random: moves things a little, or puts them left or right
    c: np.ndarray          # the same, drawn independently


def draw_backdrop(place: str, brush: Brush, decor: np.ndarray) -> None:
    """Paint a place. `decor` (n 4), random in [-1, 1], moves its things and changes its light a little."""
    rgb = lambda r, g, b: np.clip(np.array([r, g, b]) / 255 + 0.025 * decor[:, None, 3:4], 0, 1)
    a, b, c = (decor[:, i:i + 1] for i in range(3))                                                # (n 1)
    box = lambda left, top, right, bottom, colour: brush.box(left, top, right, bottom, colour)
    disc = lambda x, y, radius, colour: brush.bar(pair(x, y), pair(x, y), radius, radius, colour)
    bar = lambda x0, y0, x1, y1, r0, r1, colour, square=False: brush.bar(
        pair(x0, y0), pair(x1, y1), r0, r1, colour, square=square)
    PAINTERS[place](Tools(box, disc, bar, rgb, 44 + 2 * a, b, c))


def paint_park(tools: Tools) -> None:
    box, disc, bar, rgb, horizon, b, c = tools
    box(0, 0, 64, 64, rgb(140, 205, 250))
    for x in (10 + 5 * b, 52 + 5 * c):
        bar(x, horizon, x, horizon - 16, 1.8, 1.6, rgb(116, 78, 46))
        disc(x, horizon - 22, 8.5, rgb(40, 140, 60))
        disc(x - 5, horizon - 17, 5.5, rgb(52, 158, 70))
        disc(x + 5, horizon - 17, 5.5, rgb(34, 124, 54))
    box(0, horizon, 64, 64, rgb(104, 190, 74))
    box(0, horizon + 7, 64, 64, rgb(86, 172, 62))


def paint_beach(tools: Tools) -> None:
    box, disc, _, rgb, horizon, b, c = tools
    box(0, 0, 64, 64, rgb(120, 200, 255))
    disc(12 + 40 * (b > 0), 9 + 2 * c, 5.0, rgb(255, 240, 120))
    box(0, horizon - 10, 64, 64, rgb(24, 110, 200))
    box(0, horizon - 6, 64, 64, rgb(40, 150, 220))
    box(0, horizon, 64, 64, rgb(246, 250, 250))
    box(0, horizon + 1.5, 64, 64, rgb(246, 218, 150))


def paint_snow(tools: Tools) -> None:
    box, disc, bar, rgb, horizon, b, c = tools
    box(0, 0, 64, 64, rgb(168, 190, 216))
    for x in (9 + 4 * b, 54 + 4 * c):
        for y, radius in ((0, 7.5), (-7, 6.0), (-13, 4.5)):
            bar(x, horizon + y, x, horizon + y - 9, radius, 0.2, rgb(40, 92, 84), square=True)
        bar(x, horizon - 17, x, horizon - 22, 2.2, 0.2, rgb(236, 242, 250), square=True)
    box(0, horizon, 64, 64, rgb(232, 240, 250))
    for i in range(9):
        disc(4 + 7 * i + 2 * b, (11 * i * i + 17 * i + 5) % 40 + 2 * c, 0.9, rgb(250, 252, 255))


def paint_desert(tools: Tools) -> None:
    box, disc, bar, rgb, horizon, b, c = tools
    box(0, 0, 64, 64, rgb(255, 196, 110))
    disc(32 + 20 * c, 11, 6.0, rgb(255, 246, 170))
    bar(16 + 8 * b, horizon + 22, 16 + 8 * b, horizon + 22, 26, 26, rgb(226, 140, 70))
    bar(52 + 8 * b, horizon + 24, 52 + 8 * b, horizon + 24, 26, 26, rgb(236, 152, 80))
    box(0, horizon + 2, 64, 64, rgb(214, 122, 58))
    x = 8 + 48 * (b > 0) + 2 * c
    bar(x, horizon + 4, x, horizon - 12, 2.0, 2.0, rgb(60, 130, 60))
    bar(x, horizon - 3, x - 5, horizon - 3, 1.4, 1.4, rgb(60, 130, 60))
    bar(x - 5, horizon - 3, x - 5, horizon - 8, 1.4, 1.4, rgb(60, 130, 60))
    bar(x, horizon - 1, x + 5, horizon - 1, 1.4, 1.4, rgb(60, 130, 60))
    bar(x + 5, horizon - 1, x + 5, horizon - 10, 1.4, 1.4, rgb(60, 130, 60))


def paint_night(tools: Tools) -> None:
    box, disc, _, rgb, horizon, b, c = tools
    box(0, 0, 64, 64, rgb(14, 16, 52))
    for i in range(10):
        disc((23 * i + 5) % 64 + 1.5 * b, (13 * i * i + 7 * i + 4) % 34 + 1.5 * c, 0.75, rgb(226, 226, 200))
    x = 14 + 36 * (b > 0)
    disc(x, 11 + 2 * c, 6.5, rgb(250, 244, 200))
    disc(x + 3, 9.5 + 2 * c, 5.4, rgb(14, 16, 52))
    box(0, horizon, 64, 64, rgb(28, 46, 56))


def paint_kitchen(tools: Tools) -> None:
    box, _, bar, rgb, horizon, b, c = tools
    box(0, 0, 64, 64, rgb(250, 236, 190))
    x = 6 + 36 * (b > 0) + 2 * c
    box(x, 6, x + 16, 20, rgb(255, 255, 255))
    box(x + 1.5, 7.5, x + 14.5, 18.5, rgb(150, 215, 250))
    bar(x + 8, 6, x + 8, 20, 0.8, 0.8, rgb(255, 255, 255))
    x = 45 - 36 * (b > 0) + 2 * c
    box(x, 14, x + 13, horizon + 1, rgb(206, 224, 226))
    box(x, 26, x + 13, 27, rgb(150, 170, 176))
    box(x + 2, 19, x + 3.2, 24, rgb(120, 140, 146))
    box(0, horizon, 64, 64, rgb(176, 92, 66))
    for i in range(8):
        for j in range(3):
            if (i + j) % 2:
                box(8 * i, horizon + 8 * j, 8 * i + 8, horizon + 8 * j + 8, rgb(222, 164, 124))


def paint_stage(tools: Tools) -> None:
    box, disc, _, rgb, horizon, b, _ = tools
    box(0, 0, 64, 64, rgb(18, 122, 124))
    for i in range(8):
        box(8 * i + b, 0, 8 * i + 3.5 + b, 64, rgb(12, 92, 98))
    for i in range(5):
        disc(6.5 + 13 * i, 1, 7.0, rgb(240, 190, 60))
    box(0, horizon, 64, 64, rgb(224, 176, 112))
    box(0, horizon, 64, horizon + 1.5, rgb(150, 100, 56))
    box(0, horizon + 9, 64, horizon + 9.8, rgb(190, 140, 84))


PAINTERS = {"park": paint_park, "beach": paint_beach, "snow": paint_snow,
            "desert": paint_desert, "night": paint_night,
            "kitchen": paint_kitchen, "stage": paint_stage}
