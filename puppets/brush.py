"""The brush that paints the puppet theatre: anti-aliased bars and boxes.

Shapes: n rows (one puppet or backdrop in one clip), f frames, h w pixels, c RGB in [0, 1]. Lengths are in
pixels of a 64x64 frame and scaled to the size asked for.
"""

import numpy as np


def pair(x, y) -> np.ndarray:
    """Return points (... 2) of x and y, which are broadcast."""
    return np.stack(np.broadcast_arrays(np.asarray(x, np.float32), np.asarray(y, np.float32)), axis=-1)


class Brush:
    """Paints anti-aliased bars and boxes into some rows of a canvas (n f h w c), colours in [0, 1]."""

    def __init__(self, canvas: np.ndarray, rows: np.ndarray, size: int):
        self.canvas, self.rows, self.size, self.unit = canvas, rows, size, size / 64

    def bar(self, start, end, start_radius, end_radius, colour, square=False, opacity=1.0, only=None) -> None:
        """Paint a tapering bar from start to end (n f 2), with round or square ends; `only` picks rows."""
        shape = (len(self.rows), self.canvas.shape[1])
        keep = np.ones(shape[0], bool) if only is None else only
        if not keep.any():
            return
        flat = lambda value, *tail: np.broadcast_to(value, (*shape, *tail))[keep].reshape(-1, *tail)
        start, end = flat(start, 2) * self.unit, flat(end, 2) * self.unit                              # (m 2)
        start_radius, end_radius = flat(start_radius) * self.unit, flat(end_radius) * self.unit
        colour = flat(colour, 3)

        # only a window around each bar is painted, because most bars cover little of the frame
        margin = np.maximum(start_radius, end_radius)[:, None] + 1
        low, high = np.minimum(start, end) - margin, np.maximum(start, end) + margin
        width, height = (int(min(self.size, np.ceil((high - low)[:, i].max()) + 1)) for i in (0, 1))
        left = np.clip(np.floor(low[:, 0]).astype(int), 0, self.size - width)
        top = np.clip(np.floor(low[:, 1]).astype(int), 0, self.size - height)
        columns, lines = left[:, None] + np.arange(width), top[:, None] + np.arange(height)

        # distance to the bar: along its axis and across it
        axis = end - start
        length = np.linalg.norm(axis, axis=1)
        unit = axis / np.maximum(length, 1e-4)[:, None]
        axis = np.where(length[:, None] > 1e-4, unit, (1.0, 0.0)).astype(np.float32)
        dx = (columns + 0.5).astype(np.float32)[:, None, :] - start[:, 0, None, None]                # (m 1 w)
        dy = (lines + 0.5).astype(np.float32)[:, :, None] - start[:, 1, None, None]                  # (m h 1)
        along = dx * axis[:, 0, None, None] + dy * axis[:, 1, None, None]                            # (m h w)
        across = np.abs(dy * axis[:, 0, None, None] - dx * axis[:, 1, None, None])
        beyond = np.maximum(-along, along - length[:, None, None])
        part = np.clip(along / np.maximum(length, 1e-4)[:, None, None], 0, 1)
        radius = start_radius[:, None, None] + (end_radius - start_radius)[:, None, None] * part
        if square:
            distance = np.maximum(beyond, across - radius)
        else:
            distance = np.hypot(np.maximum(beyond, 0), across) - radius
        alpha = (np.clip(0.5 - distance, 0, 1) * opacity)[..., None]

        clips = np.repeat(self.rows[keep], shape[1])
        frames = np.tile(np.arange(shape[1]), int(keep.sum()))
        where = (clips[:, None, None], frames[:, None, None], lines[:, :, None], columns[:, None, :])
        under = self.canvas[where]
        self.canvas[where] = under + alpha * (colour[:, None, None] - under)

    def box(self, left, top, right, bottom, colour) -> None:
        """Paint an upright box in every frame of the rows. Its sides are (n 1) or numbers."""
        middle = (np.asarray(top) + np.asarray(bottom)) / 2
        self.bar(pair(left, middle), pair(right, middle), (np.asarray(bottom) - np.asarray(top)) / 2,
                 (np.asarray(bottom) - np.asarray(top)) / 2, colour, square=True)
