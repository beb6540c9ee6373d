"""What `-m` of generate_pretrained.py names: the result of a run, or a base as it is.

It stands in this room because motion weights carry the config of their run.
"""

from dataclasses import dataclass
from pathlib import Path

from training.config import Config
from training.config_loading import parse_config
from utils.errors import UserError


@dataclass(frozen=True)
class Source:
    """Where the weights come from, and what they say about how to render with them."""

    base: str                     # diffusers folder or hub id
    motion: Path | None           # motion weights; None: the base as it is
    config: Config | None         # they were trained with
    fps: float | None             # frames per second at which the motion was learned
    placeholder_token: str

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels of the samples of the training run."""
        wanted = self.config and self.config.validation_data
        return (wanted.width, wanted.height) if wanted else None


def find_model(given: str, moved_base: str | None) -> Source:
    """Return what `given`, of -m, names; `moved_base` is where the base of a motion lies now, if it moved.

    Raises UserError if it is neither motion weights nor a base.
    """
    from models.base_folder import HUB_ALIASES, check_base_folder, is_hub_id
    from models.motion_weights import read_motion_info
    from training.run_folder import find_motion

    motion = find_motion(given)
    if motion and motion.suffix != ".safetensors":
        raise UserError(f"{given}: is not a motion.safetensors. Name a run folder, or the file of that name "
                        f"in it.")
    if motion:
        info = read_motion_info(motion)
        config, _ = parse_config(info.config, f"the config in {motion}")
        return Source(moved_base or info.base, motion, config, info.fps, info.placeholder_token)
    if Path(given).is_dir():
        problems = check_base_folder(Path(given))
        if problems and not (Path(given) / "model_index.json").exists():
            raise UserError(f"{given}: holds neither motion weights nor a diffusers pipeline. Name a run "
                            f"folder, a motion.safetensors, a base or a hub id.")
        if problems:
            raise UserError(*problems)
    elif not is_hub_id(given) and given not in HUB_ALIASES:
        raise UserError(f"{given}: does not exist. Name a run folder, a motion.safetensors, a base or a hub "
                        f"id.")
    return Source(given, None, None, None, Config.placeholder_token)
