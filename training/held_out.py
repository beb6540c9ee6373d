"""Choosing the clips that never train.

Their loss says whether the run still learns the motion, or only its clips by heart. The training loss cannot.
"""

from training.clips import Clip
from training.config import Config
from training.windows import seed_for
from utils.errors import UserError


def set_apart(config: Config, exemplars: list[Clip],
              regularization: list[Clip]) -> tuple[list[Clip], list[Clip], dict[str, list[Clip]]]:
    """Return the exemplars and the regularization clips that train, and {role: clips} that are held out.

    As many regularization clips are held out as exemplars, and fewer where none would be left to train on. A
    file is held out whole: other clips of the same content do not train either, in neither role. Which files
    are held out depends on the seed and their names alone, so that adding a clip changes little.

    Raises UserError if no exemplar is left.
    """
    num, by_digest = config.train_data.held_out, {clip.digest: clip for clip in reversed(exemplars)}
    if not num:
        return exemplars, regularization, {}
    if exemplars and num >= len(by_digest):
        raise UserError(f"train_data.held_out is {num}, and of {len(by_digest)} exemplar files none would be "
                        f"left to train on. Hold out at most {len(by_digest) - 1}.")
    held = {"exemplar": _chosen(config, "exemplar", by_digest, num)}
    others = {clip.digest: clip for clip in reversed(regularization) if clip.digest not in by_digest}
    num = min(num, max(0, len({clip.digest for clip in regularization}) - 1))
    held["regularization"] = _chosen(config, "regularization", others, num)
    digests = {clip.digest for clips in held.values() for clip in clips}
    return ([clip for clip in exemplars if clip.digest not in digests],
            [clip for clip in regularization if clip.digest not in digests], held)


def _chosen(config: Config, role: str, by_digest: dict[str, Clip], num: int) -> list[Clip]:
    drawn = sorted(by_digest.values(), key=lambda clip: seed_for("held out", role, config.seed,
                                                                 clip.path.name))[:num]
    return sorted(drawn, key=lambda clip: clip.path.name)
