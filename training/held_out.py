"""Choosing the clips that never train.

Their loss says whether the run still learns the motion, or only its clips by heart. The training loss cannot.
"""

from collections.abc import Iterable
from dataclasses import replace

from training.clips import Clip
from training.config import Config
from training.windows import seed_for
from utils.errors import UserError
from utils.prompts import names_motion, tokens_in


def set_apart(config: Config, exemplars: list[Clip],
              regularization: list[Clip]) -> tuple[list[Clip], list[Clip], dict[str, list[Clip]]]:
    """Return the exemplars and the regularization clips that train, and {role: clips} that are held out.

    Of several motions, train_data.held_out exemplars are held out of each. As many regularization clips are
    held out as exemplars, and fewer where none would be left to train on. A file is held out whole: other
    clips of the same content do not train either, in neither role. Which files are held out depends on the
    seed and their names alone, so that adding a clip changes little. Held-out clips are measured without
    shifts.

    Raises UserError if no exemplar of a motion is left.
    """
    num, by_digest = config.train_data.held_out, {clip.digest: clip for clip in reversed(exemplars)}
    if not num:
        return exemplars, regularization, {}
    motions = by_motion(by_digest.values(), tokens_in(config.placeholder_token))
    for token, clips in motions.items():
        if num >= len(clips):
            of_motion = f" of {token}" if len(motions) > 1 else ""
            raise UserError(f"train_data.held_out is {num}, and of {len(clips)} exemplar files{of_motion} "
                            f"none would be left to train on. Hold out at most {len(clips) - 1}.")
    held = {"exemplar": [clip for clips in motions.values()
                         for clip in _chosen(config, "exemplar", clips, num)]}
    num *= max(1, len(motions))
    others = {clip.digest: clip for clip in reversed(regularization) if clip.digest not in by_digest}
    num = min(num, max(0, len({clip.digest for clip in regularization}) - 1))
    held["regularization"] = _chosen(config, "regularization", others.values(), num)
    held = {role: [replace(clip, shifts=(0.0,)) for clip in clips] for role, clips in held.items()}
    digests = {clip.digest for clips in held.values() for clip in clips}
    return ([clip for clip in exemplars if clip.digest not in digests],
            [clip for clip in regularization if clip.digest not in digests], held)


def by_motion(clips: Iterable[Clip], tokens: list[str]) -> dict[str, list[Clip]]:
    """Return {token: clips} of the motions that have clips. A clip belongs to the first motion that its
    captions name; if they name none, to the first of all."""
    found = {token: [] for token in tokens}
    for clip in clips:
        named = [token for token in tokens if any(names_motion(caption, token) for caption in clip.captions)]
        found[(named or tokens)[0]].append(clip)
    return {token: clips for token, clips in found.items() if clips}


def _chosen(config: Config, role: str, clips: Iterable[Clip], num: int) -> list[Clip]:
    drawn = sorted(clips, key=lambda clip: seed_for("held out", role, config.seed,
                                                                 clip.path.name))[:num]
    return sorted(drawn, key=lambda clip: clip.path.name)
