"""What a user should know of a checked plan beside its clips: where it computes, what is likely a mistake.

Each function returns lines, none where there is nothing to say.
"""

import re
from collections.abc import Iterable, Sequence

from models.tunable import temporal_names
from training.clips import Clip
from training.footprint import Footprint
from utils.devices import device_name, free_memory, has_gpu, precision_name
from utils.files import format_bytes
from utils.prompts import MOTION_TOKEN

MOST_ON_CPU = 100_000_000   # parameters, eight times the bundled base's


def machine_line(precision: str, clips: Iterable[Clip], ways: Sequence[str]) -> list[str]:
    """Return where and how it is computed, and the seconds of a window of `clips`. `ways`: of the step."""
    seconds = sorted({f"{clip.window / clip.fps:.2g}" for clip in clips if clip.window > 1}, key=float)
    shown = f"; a window shows {' to '.join(dict.fromkeys([seconds[0], seconds[-1]]))} s" if seconds else ""
    how = ", ".join([precision_name(precision), *ways])
    return [f"on {device_name()}, {format_bytes(free_memory())} free: {how}{shown}"]


def memory_remark(footprint: Footprint, fits: bool, recompute: bool) -> list[str]:
    """Warn of a step that is estimated to take more memory than is free."""
    if fits:
        return []
    again = "" if recompute else "set gradient_checkpointing: true, "
    return [f"note: a step is estimated to take {format_bytes(footprint.total())}, and of memory "
            f"{format_bytes(free_memory())} are free, which may not do: {again}lower train_data.width, "
            f".height or .n_sample_frames, or set use_8bit_adam: true on an NVIDIA GPU"]


def device_remark(num_parameters: int) -> list[str]:
    """Warn of a base that is too large for a CPU."""
    if num_parameters <= MOST_ON_CPU or has_gpu():
        return []
    return [f"note: a base of {num_parameters / 1e6:,.0f} M parameters is about to train on a CPU, where a "
            f"step may take minutes: use a machine with a GPU, or models/puppet-theatre to try things out"]


def frames_remark(trained_names: Iterable[str], clips: Sequence[Clip]) -> list[str]:
    """Warn of layers along time that train where no window has a time: all they would see is padding."""
    if any(clip.window > 1 for clip in clips) or not temporal_names(trained_names):
        return []
    return ["note: every window is a single frame, and the temporal layers train on it, which can spoil how "
            "the base moves: for appearance alone set trainable_modules: [cross, self]"]


def prompt_remark(exemplars: Sequence[Clip], prompts: Sequence[str], token: str) -> list[str]:
    """Warn of sample prompts that all call the motion something else than the captions of the exemplars do.

    `token`: what V* has become in captions and prompts.
    """
    identifier = rf"(?<!\w){re.escape(token)}(?!\w)"

    def names(texts: Iterable[str]) -> list[str]:   # of the motion: the words behind V*
        found = [word for text in texts for word in re.findall(rf"{identifier}\s+(\w+)", text)]
        return list(dict.fromkeys(map(str.casefold, found)))

    captions = [caption for clip in exemplars for caption in clip.captions]
    taught = names(captions)
    if not prompts or not taught or set(taught) & set(names(prompts)):
        return []
    caption = next(caption for caption in captions if names([caption]))
    wrong, right = (re.sub(identifier, MOTION_TOKEN, text) for text in (prompts[0], caption))
    return [f"note: the captions teach \"{MOTION_TOKEN} {taught[0]}\", and no sample prompt asks for it, "
            f"such as \"{wrong}\": set validation_data.prompt=\"{right}\", or name a file of prompts"]
