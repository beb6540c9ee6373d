"""Requests of a config that the network of a base cannot meet."""

from collections.abc import Iterable, Mapping

from models.tunable import temporal_names, union
from training.clips import Clip
from training.config import Config


def check_sizes(config: Config, strides: tuple[int, int]) -> list[str]:
    """Return the sizes that the network cannot take."""
    cell, coarsest = strides
    wanted = [("validation_data", config.validation_data.width, config.validation_data.height, cell)]
    if not config.train_data.use_bucketing:
        wanted.append(("train_data", config.train_data.width, config.train_data.height, coarsest))
    problems = [f"{section}: {width}x{height} pixels: both must be multiples of {multiple} for this base."
                for section, width, height, multiple in wanted if width % multiple or height % multiple]
    if len(wanted) == 1 and wanted[0][1:3] == (config.train_data.width, config.train_data.height):
        problems = [f"{problem} They are those of train_data, unless validation_data.width and .height are "
                    f"set." for problem in problems]
    return problems


def check_num_frames(config: Config, most: int | None) -> list[str]:
    """Return the numbers of frames that are more than the `most` that the base takes."""
    wanted = {"train_data.n_sample_frames": config.train_data.n_sample_frames,
              "validation_data.num_frames": config.validation_data.num_frames}
    return [f"{key} is {num_frames}. This base takes at most {most} frames."
            for key, num_frames in wanted.items() if most and num_frames > most]


def check_single_frames(config: Config, clips: Iterable[Clip],
                        selected: Mapping[str, list[str]]) -> list[str]:
    """Return a problem if single frames skip temporal layers that are to train.

    A skipped layer gets no gradient.
    """
    is_skipped = (config.train_data.single_frame_layers == "spatial"
                  and any(clip.window == 1 for clip in clips))
    if not is_skipped or not temporal_names(union(selected)):
        return []
    return ["train_data.single_frame_layers: spatial skips the temporal layers, and trainable_modules trains "
            "them. Set trainable_modules: [cross, self], or single_frame_layers: all."]
