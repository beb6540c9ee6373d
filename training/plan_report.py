"""What a user reads of a plan before training: clips, what trains, where and how, and what is likely a
mistake.

Each function that warns returns lines, and none where there is nothing to say.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from models.hub import is_hub_id
from models.tunable import selection_report, temporal_names
from training.clips import Clip, clip_report, motions_report
from training.config import Config, num_due
from training.launch import shutdown_remark, uses_fsdp
from training.plan import Plan, disk_needs, fits, motion_bytes, sample_fps
from utils.containers import is_image
from utils.devices import device_name, free_memory, has_gpu, precision_name
from utils.files import format_bytes, free_bytes
from utils.prompts import MOTION_TOKEN, token_pattern, with_identifiers
from utils.wording import counted

SLOW_FOR_LORA = 2e-5   # a learning rate below which low-rank updates hardly move
MOST_ON_CPU = 100_000_000   # parameters; eight times as many as the bundled base has


def plan_report(plan: Plan) -> str:
    """Return the clips, what trains, where and how it is computed, and warnings."""
    config, clips = plan.config, plan.exemplars + plan.regularization
    lines = [clip_report(plan.exemplars, plan.regularization, plan.held_out),
             *motions_report(plan.exemplars, config.placeholder_token)]
    if config.train_data.num_shifts:
        lines.append(f"each clip also moved sideways {counted(config.train_data.num_shifts, 'time')}, by up "
                     f"to {config.train_data.max_shift:.0%} of its width")
    if not config.prior_preservation:
        lines.append("prior_preservation is off: training without regularization")
    elif not plan.regularization:
        lines.append("train_data.class_path is not set: training without regularization, which forgets more "
                     "of what the base knows")
    learned_at = {clip.fps for clip in plan.exemplars if not is_image(clip.path)}
    if learned_at:
        rates = ", ".join(f"{fps:.4g}" for fps in sorted(learned_at))
        lines.append(f"motion is learned at {rates} frames per second; samples are written at "
                     f"{sample_fps(plan):.4g}")
    if plan.selected:
        lines.append(selection_report(plan.selected, plan.num_elements))
        lines += absent_remark(plan) + lora_report(plan)
    lines += [f"note: a caption is too long for the text encoder, not seen: \"{words}\""
              for words in plan.unseen.values()]
    lines += [machine_line(plan), *busy_remark(), *steps_remark(config), *shutdown_remark()]
    if plan.way:
        lines += memory_remark(plan) + device_remark(sum(plan.num_elements.values()))
        lines += frames_remark(plan.trained_names, clips)
    if plan.selected and any(clip.window == 1 for clip in clips):
        way = "skip" if plan.skips_temporal_layers else "go through"
        lines.append(f"single frames {way} the temporal layers (train_data.single_frame_layers)")
    prompts = [prompt.text for prompt in plan.prompts]
    if plan.num_left_out and config.validation_steps:
        lines.append(f"samples: the first {len(prompts)} of {len(prompts) + plan.num_left_out} prompts "
                     f"(validation_data.max_prompts)")
    return "\n".join(lines + prompt_remark(plan.exemplars, prompts, config.placeholder_token))


def lora_report(plan: Plan) -> list[str]:
    """Return what low-rank updates change in these groups, and the size of the file they make."""
    if not plan.lora:
        return []
    lora, layers = plan.lora, plan.num_trained
    num_others = len(plan.trained_names) - len(layers)
    lines = [f"  as low-rank updates: rank {lora.rank}, alpha {lora.alpha:g}, of {len(layers)} layers, "
             f"{sum(layers.values()):,} values; the other {num_others} tensors stay",
             f"  motion.safetensors: {format_bytes(motion_bytes(plan))} in {plan.config.motion_dtype}"]
    if plan.config.learning_rate < SLOW_FOR_LORA:
        lines.append(f"note: learning_rate {plan.config.learning_rate:g} is that of whole weights; low-rank "
                     f"updates take larger steps, about 1e-4")
    return lines


def estimate_report(plan: Plan) -> str:
    """Return the estimates of memory and disk, for a dry run."""
    if plan.base_folder is None:
        parts = list(filter(None, (plan.config.pretrained_model_path, plan.config.motion_adapter_path)))
        there = [f"hf download {part}" for part in parts if is_hub_id(part)]
        return (f"{' with '.join(parts)} is not on this machine yet, so memory and disk are not estimated. "
                f"Training downloads it; for an estimate before that: {' && '.join(there)}")
    footprint, (cache, results) = plan.footprints[plan.way], disk_needs(plan)
    free = format_bytes(free_bytes(Path(plan.config.output_dir)))
    return (f"{footprint.report()}\ndisk, at most: cache {format_bytes(cache)}, checkpoints and motion "
            f"weights {format_bytes(results)}; {free} are free")


def machine_line(plan: Plan) -> str:
    """Return the device, the way a step is computed, and the seconds that a window shows."""
    how = [precision_name(plan.config.mixed_precision)]
    if plan.way:
        apart, recompute = plan.way
        if plan.regularization:
            how.append(f"exemplars and regularization {'in turn' if apart else 'together'}")
        how.append(f"activations {'recomputed' if recompute else 'kept'}")
    seconds = {f"{clip.window / clip.fps:.2g}" for clip in plan.exemplars if clip.window > 1}
    seconds = sorted(seconds, key=float)
    shown = f"; a window shows {' to '.join(dict.fromkeys([seconds[0], seconds[-1]]))} s" if seconds else ""
    return f"on {device_name()}, {format_bytes(free_memory())} free: {', '.join(how)}{shown}"


def steps_remark(config: Config) -> list[str]:
    """Return a note for lists of steps of which none comes within the training."""
    lost = {"checkpointing_steps": "a run that is killed starts anew, and one that has finished cannot train "
                                   "further",
            "validation_steps": "no samples of what was learned are rendered"}
    return [f"note: none of {key} ({getattr(config, key)}) comes within the {config.max_train_steps} steps: "
            f"{what}" for key, what in lost.items()
            if getattr(config, key) and not num_due(getattr(config, key), config.max_train_steps)]


def busy_remark() -> list[str]:
    """Warn of a CPU that other programs keep busy: threads that wait for one that is not running slow a step
    down many times (docs/performance.md)."""
    num_cores = os.cpu_count() or 1
    num_busy = round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0   # Windows does not say
    if has_gpu() or num_cores == 1 or not num_busy or "OMP_NUM_THREADS" in os.environ:
        return []
    return [f"note: other programs keep {min(num_busy, num_cores)} of {num_cores} cores busy: "
            f"OMP_NUM_THREADS={max(1, num_cores - num_busy)} in front of the command may be several times "
            f"faster"]


def absent_remark(plan: Plan) -> list[str]:
    """Name the groups that this base does not have, and a key that is about one of them."""
    groups = [group for group in plan.config.trainable_modules if group not in plan.selected]
    lines = [f"{', '.join(groups)}: this base has no such layers"] if groups else []
    if plan.config.temporal_dropout and not any(".temp_convs." in name for name in plan.num_elements):
        lines.append("temporal_dropout has no effect: this base has no temporal convolutions")
    return lines


def memory_remark(plan: Plan) -> list[str]:
    """Warn of a step that is estimated to take more memory than is free."""
    footprint, (_, recompute) = plan.footprints[plan.way], plan.way
    if fits(footprint) or uses_fsdp():   # the estimate knows nothing of weights that FSDP spreads
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
    """Warn of temporal layers that train on single frames: they would see nothing but padding."""
    if any(clip.window > 1 for clip in clips) or not temporal_names(trained_names):
        return []
    return ["note: every window is a single frame, and the temporal layers train on it, which can spoil how "
            "the base moves: for appearance alone set trainable_modules: [cross, self]"]


def prompt_remark(exemplars: Sequence[Clip], prompts: Sequence[str], token: str) -> list[str]:
    """Warn if all sample prompts call the motion something else than the captions of the exemplars do.

    `token`: the tokens that replace V*, V2*, ... in captions and prompts.
    """
    named = token_pattern(token)

    def names(texts: Iterable[str]) -> list[str]:   # of the motion: the words behind V*
        found = [word for text in texts for word in re.findall(rf"{named}\s+(\w+)", text)]
        return list(dict.fromkeys(map(str.casefold, found)))

    captions = [caption for clip in exemplars for caption in clip.captions]
    taught = names(captions)
    if not prompts or not taught or set(taught) & set(names(prompts)):
        return []
    caption = next(caption for caption in captions if names([caption]))
    wrong, right = (with_identifiers(text, token) for text in (prompts[0], caption))
    return [f"note: the captions teach \"{MOTION_TOKEN} {taught[0]}\", and no sample prompt asks for it, "
            f"such as \"{wrong}\": set validation_data.prompt=\"{right}\", or name a file of prompts"]
