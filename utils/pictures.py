"""Still and animated pictures, read by Pillow: GIF, WebP, PNG, JPEG, BMP. Frames are uint8 (h w c), RGB.

They are shown as browsers show them: upright, on white where they are transparent, and a frame of a GIF with
a delay of 0 or 10 ms for 100 ms.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from utils.errors import UserError

ANIMATED = ("GIF", "PNG", "WEBP")   # not MPO, a photo of a phone that also holds a depth or gain map
SHORTEST, INSTEAD = 11, 100   # milliseconds: a frame shorter than SHORTEST is shown for INSTEAD


def read_pictures(path: Path) -> Iterator[tuple[np.ndarray, float, bool]]:
    """Yield every picture, how many milliseconds it is shown, and whether some of it is transparent."""
    try:
        with Image.open(path) as image:
            frames = ImageSequence.Iterator(image) if image.format in ANIMATED else [image]
            for number, frame in enumerate(frames):
                # a PNG may have a default picture that is no part of its animation
                if number == 0 and getattr(image, "default_image", False) and image.n_frames > 1:
                    continue
                frame.load()   # a WebP knows the duration of a frame only then
                milliseconds = frame.info.get("duration") or 0
                shown = milliseconds if milliseconds >= SHORTEST else INSTEAD
                pixels, is_transparent = on_white(ImageOps.exif_transpose(frame))
                yield pixels, shown, is_transparent
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: is not a picture that can be read. Remove it or save it again.") from error


def on_white(image: Image.Image) -> tuple[np.ndarray, bool]:
    """Return a picture on white (h w c), and whether some of it was transparent."""
    if image.mode.startswith("I") or image.mode == "F":   # 16 bits, which Pillow would clip, not scale
        grey = np.asarray(image).astype(np.float64)
        scaled = np.rint(grey / 257).clip(0, 255).astype(np.uint8)
        return np.repeat(scaled[:, :, None], 3, axis=2), False
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")), False
    return composite(np.asarray(image.convert("RGBA")))


def composite(pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return RGBA pixels (h w 4) on white (h w 3), and whether any was transparent."""
    colour, alpha = pixels[:, :, :3].astype(np.uint16), pixels[:, :, 3:].astype(np.uint16)
    mixed = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8), bool(alpha.min() < 255)
