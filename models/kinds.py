"""The kinds of bases that this program knows, and how a kind is recognized."""

from collections.abc import Iterable

from models.animatediff import ANIMATEDIFF
from models.base_kind import BaseKind
from models.zeroscope import ZEROSCOPE

KINDS = (ZEROSCOPE, ANIMATEDIFF)


def kind_of(names: Iterable[str]) -> BaseKind:
    """Return the kind of the UNet whose parameters are called `names`, told by its layers along time.

    A UNet without such layers counts as the first kind.
    """
    names = list(names)
    return next((kind for kind in KINDS if any(kind.is_along_time(name) for name in names)), KINDS[0])


def kind_of_classes(pipeline: str, unet: str) -> BaseKind | None:
    """Return the kind that a folder of these classes is, or becomes with a motion adapter."""
    return next((kind for kind in KINDS if (pipeline, unet) in (
        (kind.pipeline, kind.unet), (kind.image_pipeline, kind.image_unet))), None)
