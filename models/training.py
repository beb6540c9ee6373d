"""The training run: load -> freeze all -> select -> cache -> prepare -> loop -> motion weights.

Everything random is a function of (seed, step), so a run stopped anywhere and resumed continues as if it had not been.
Shapes: b clips, c latent channels, f frames, h w latent cells, n tokens, d text width.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn
from tqdm import tqdm

from models.base import Base, load_base, training_scheduler, unseen_words
from models.checkpoint import load_checkpoint, read_state, save_checkpoint
from models.inputs import Inputs, encode_inputs, prompt_embeds, sample_latents
from models.motion_weights import DTYPES, MotionInfo, library_versions, movement, save_motion
from models.objective import SKEW, clip_losses, sample_noise, sample_timesteps, total_loss
from models.plan import Plan, sample_fps
from models.recompute import recompute_activations
from models.sampling import COMPUTE_DTYPES, Rendering, render_to_folder
from utils.config import Config, config_yaml, is_due
from utils.errors import UserError
from utils.gallery import write_gallery
from utils.run_folder import (
    MOTION_NAME,
    append_log,
    checkpoint_dir,
    checkpoints,
    remove_leftovers,
    rewind_log,
    samples_dir,
)
from utils.seeds import seed_for
from utils.windows import Window, draw_window, turns


def train(plan: Plan, accelerator, run: Path) -> Path:
    """Carry out `plan` in the folder `run`, from its newest checkpoint if it has any; return the motion weights."""
    config = plan.config
    base = load_base(config.pretrained_model_path)
    unet, scheduler = base.unet, training_scheduler(base)

    # prepare() wraps in DDP only if something requires grad, so what trains is chosen first
    trained = select_parameters(unet, plan.trained_names)
    set_temporal_dropout(unet, config.temporal_dropout)
    inputs = cache_inputs(plan, base, accelerator)
    hold_frozen_weights_in(unet, COMPUTE_DTYPES[config.mixed_precision])
    if config.gradient_checkpointing:
        recompute_activations(unet)
    plain_forward = unet.forward   # prepare() wraps it in autocast, which rendering goes without
    optimizer = make_optimizer(config, trained, accelerator)
    prepared, optimizer = accelerator.prepare(unet, optimizer)
    prepared.train()

    start = resume(plan, run, trained, optimizer, accelerator) if checkpoints(run) else 0
    learning_rate_at = learning_rate_schedule(config, accelerator.num_processes)
    describe = motion_description(plan, base)

    def render_samples(step: int) -> None:
        if plan.prompts and (step == 0 or is_due(step, config.validation_steps)):
            if accelerator.is_main_process:
                with as_generation_sees(base, trained, plain_forward, config, step):
                    write_samples(plan, base, run, step)
            accelerator.wait_for_everyone()

    def save(step: int) -> None:
        if accelerator.is_main_process:
            save_checkpoint(checkpoint_dir(run, step), trained, optimizer.optimizer, describe(step),
                            config.motion_dtype, run_state(plan, accelerator))
        accelerator.wait_for_everyone()

    render_samples(start)
    bar = tqdm(range(start, config.max_train_steps), initial=start, total=config.max_train_steps, desc="training",
               disable=not accelerator.is_main_process, dynamic_ncols=True)
    with stop_signals() as stop:
        for step in bar:
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step)
            entry = optimizer_step(plan, prepared, scheduler, inputs, optimizer, trained, accelerator, step)
            entry |= {"lr": learning_rate_at(step), "seconds": round(time.perf_counter() - began, 4)}
            if accelerator.is_main_process:
                append_log(run, entry)
                bar.set_postfix({name: f"{entry[name]:.4f}" for name in ("exemplar", "regularization")
                                 if entry[name] is not None})
            accelerator.log({name: entry[name] for name in entry if entry[name] is not None}, step=step + 1)
            stopping = requested(stop, accelerator)
            if is_due(step + 1, config.checkpointing_steps) or stopping:
                save(step + 1)
            if stopping:
                bar.close()
                accelerator.print(f"Stopped after step {step + 1}, and saved. Continue with\n  python train_model.py "
                                  f"--resume {run}")
                accelerator.end_training()
                sys.exit(128 + stop[0])
            render_samples(step + 1)
    if accelerator.is_main_process:
        accelerator.print(movement_report(plan, trained))
        # written last: a run is finished when it has its motion weights
        save_motion(run / MOTION_NAME, trained, describe(config.max_train_steps), config.motion_dtype)
    accelerator.end_training()
    return run / MOTION_NAME


def optimizer_step(plan: Plan, unet: nn.Module, scheduler, inputs: Inputs, optimizer, trained: Mapping[str, Tensor],
                   accelerator, step: int) -> dict:
    """Take optimizer step `step`, counted from 0; return its log entry.

    Raises UserError before the optimizer touches a weight if a loss or the gradient is not finite.
    """
    config, means = plan.config, []
    num_micro_steps = config.gradient_accumulation_steps
    for micro_step in range(num_micro_steps):
        rank, num_ranks = accelerator.process_index, accelerator.num_processes
        turn_range = turns(step, micro_step, num_micro_steps, rank, num_ranks, config.train_batch_size)
        windows = [draw_window(plan.exemplars, "exemplar", config.seed, turn) for turn in turn_range]
        if plan.regularization:
            windows += [draw_window(plan.regularization, "regularization", config.seed, turn) for turn in turn_range]
        torch.manual_seed(seed_for("dropout", config.seed, step, micro_step, rank))   # the only use of global state

        is_last = micro_step == num_micro_steps - 1
        with nullcontext() if is_last else accelerator.no_sync(unet):
            losses = window_losses(unet, scheduler, inputs, windows, config, accelerator.device)   # (b)
            exemplar, regularization = losses.split([len(turn_range), len(windows) - len(turn_range)])
            loss = total_loss(exemplar, regularization if plan.regularization else None, config.prior_lambda)
            if not torch.isfinite(loss):
                raise UserError(not_finite("loss", step, windows))
            accelerator.backward(loss / num_micro_steps)
        means.append(torch.stack([exemplar.mean(), regularization.mean(), loss]).detach())   # mean of none: nan

    grad_norm = accelerator.clip_grad_norm_(list(trained.values()), config.max_grad_norm)
    if accelerator.scaler is None and not torch.isfinite(grad_norm):
        raise UserError(not_finite("gradient", step, windows))
    optimizer.step()   # in fp16 the scaler leaves out steps whose gradient overflowed, and lowers its scale
    if accelerator.scaler is not None and accelerator.scaler.get_scale() < 1:
        raise UserError(not_finite("gradient", step, windows))
    optimizer.zero_grad()
    exemplar, regularization, loss = accelerator.reduce(torch.stack(means).mean(dim=0), "mean").tolist()
    return {"step": step + 1, "loss": loss, "exemplar": exemplar,
            "regularization": regularization if plan.regularization else None, "grad_norm": float(grad_norm)}


def window_losses(unet: Callable, scheduler, inputs: Inputs, windows: list[Window], config: Config,
                  device: torch.device) -> Tensor:
    """Return the loss of each training example (b). Examples of one shape go through the network together."""
    data = config.train_data
    offset = config.offset_noise_strength if config.use_offset_noise else 0.0
    batches: dict[tuple[int, ...], list[int]] = {}
    latents, timesteps, noise = [], [], []
    for index, window in enumerate(windows):
        latents.append(sample_latents(inputs, window)[None])                                      # (1 c f h w)
        timesteps.append(sample_timesteps(1, scheduler.config.num_train_timesteps, SKEW[data.sampling],
                                          window.generator))                                      # (1)
        noise.append(sample_noise(latents[-1].shape, window.generator, offset))                   # (1 c f h w)
        batches.setdefault(tuple(latents[-1].shape), []).append(index)

    def gathered(parts: list[Tensor], indices: list[int]) -> Tensor:
        return torch.cat([parts[index] for index in indices]).to(device)

    embeds = [prompt_embeds(inputs, window)[None] for window in windows]                          # (1 n d)
    losses = {}
    for indices in batches.values():
        batch = [gathered(parts, indices) for parts in (latents, noise, timesteps, embeds)]
        losses |= zip(indices, clip_losses(unet, scheduler, *batch))
    return torch.stack([losses[index] for index in range(len(windows))])


def select_parameters(unet: nn.Module, names: list[str]) -> dict[str, nn.Parameter]:
    """Freeze the network but for `names`; return those, by name."""
    parameters = dict(unet.named_parameters())
    unet.requires_grad_(False)
    return {name: parameters[name].requires_grad_(True) for name in names}


def set_temporal_dropout(unet: nn.Module, probability: float) -> None:
    """Set the dropout inside the temporal convolutions, where diffusers has 0.1 whatever the base's config says."""
    for name, module in unet.named_modules():
        if isinstance(module, nn.Dropout) and ".temp_convs." in f".{name}":
            module.p = probability


def hold_frozen_weights_in(unet: nn.Module, dtype: torch.dtype) -> None:
    """Keep what does not train in the compute precision; what trains stays a float32 master."""
    for parameter in unet.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def make_optimizer(config: Config, trained: Mapping[str, nn.Parameter], accelerator) -> torch.optim.Optimizer:
    """Return AdamW over the trained tensors alone, as one group."""
    arguments = {"betas": (config.adam_beta1, config.adam_beta2), "weight_decay": config.adam_weight_decay,
                 "eps": config.adam_epsilon, "lr": learning_rate_schedule(config, accelerator.num_processes)(0)}
    if config.use_8bit_adam:
        from bitsandbytes.optim import AdamW8bit   # optional; models/plan.py has checked that it is there

        return AdamW8bit(list(trained.values()), **arguments)
    return torch.optim.AdamW(list(trained.values()), **arguments)


def learning_rate_schedule(config: Config, num_processes: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimizer step, so that resuming has nothing to restore."""
    rate = config.learning_rate
    if config.scale_lr:
        rate *= config.train_batch_size * config.gradient_accumulation_steps * num_processes
    carrier = torch.optim.SGD([torch.zeros(1)], lr=rate)   # the library wants an optimizer to attach to
    schedule = get_scheduler(config.lr_scheduler, carrier, num_warmup_steps=config.lr_warmup_steps,
                             num_training_steps=config.max_train_steps, num_cycles=config.lr_num_cycles,
                             power=config.lr_power)
    return lambda step: rate * schedule.lr_lambdas[0](step)


def cache_inputs(plan: Plan, base: Base, accelerator) -> Inputs:
    """Encode clips and captions on the accelerator; afterwards both encoders leave it."""
    cache_dir = Path(plan.config.cached_latent_dir or Path(plan.config.output_dir) / "cache")
    encoders = base.vae, base.pipeline.text_encoder
    for encoder in encoders:
        encoder.to(accelerator.device)
    if accelerator.is_main_process:
        for caption in dict.fromkeys(c for clip in plan.exemplars + plan.regularization for c in clip.captions):
            if unseen := unseen_words(base.pipeline, caption):
                print(f"caption too long for the text encoder, not seen: \"{unseen}\"")
    with accelerator.main_process_first():   # the others then find everything there
        inputs = encode_inputs(base.pipeline, plan.exemplars + plan.regularization, cache_dir,
                               lambda jobs: tqdm(jobs, desc="encoding clips and captions", dynamic_ncols=True,
                                                 disable=not jobs or not accelerator.is_main_process))
    for encoder in encoders:
        encoder.to("cpu")
    return inputs


@contextmanager
def as_generation_sees(base: Base, trained: Mapping[str, nn.Parameter], plain_forward: Callable, config: Config,
                       step: int) -> Iterator[None]:
    """Make the pipeline what generation will load from the motion weights of this step, and undo it afterwards.

    The trained tensors are rounded as the file rounds them (at step 0 there is no file: the base is as it is), and
    everything is in the compute precision without autocast. That is what makes samples equal to generated videos.
    """
    dtype, unet, device = COMPUTE_DTYPES[config.mixed_precision], base.unet, next(iter(trained.values())).device
    masters = {name: parameter.data for name, parameter in trained.items()}
    prepared_forward, encoders = unet.forward, (base.vae, base.pipeline.text_encoder)
    try:
        for parameter in trained.values():
            parameter.data = (parameter.data.to(DTYPES[config.motion_dtype]) if step else parameter.data).to(dtype)
        for encoder in encoders:
            encoder.to(device, dtype)
        unet.forward = plain_forward
        unet.eval()
        yield
    finally:
        unet.forward = prepared_forward
        unet.train()
        for encoder in encoders:
            encoder.to("cpu")
        for name, parameter in trained.items():
            parameter.data = masters[name]


def write_samples(plan: Plan, base: Base, run: Path, step: int) -> None:
    """Render the sample prompts into samples/step_N of the run, with a gallery."""
    wanted = plan.config.validation_data
    how = Rendering(wanted.width, wanted.height, wanted.num_frames, wanted.num_inference_steps, wanted.guidance_scale,
                    wanted.negative_prompt)
    made_with = {"base": base.name, "motion": run.name if step else None, "step": step, "strength": 1.0}
    remarks = render_to_folder(
        base.pipeline, plan.prompts, how, samples_dir(run, step), sample_fps(plan), wanted.batch_size, made_with,
        lambda batches: tqdm(batches, desc=f"samples of step {step}", leave=False, dynamic_ncols=True))
    write_gallery(run)   # of all steps, side by side
    for remark in remarks:
        tqdm.write(f"samples of step {step}: {remark}")


def resume(plan: Plan, run: Path, trained: Mapping[str, Tensor], optimizer, accelerator) -> int:
    """Load the newest checkpoint of `run`; return its step, which is the next to take, counted from 0."""
    folder = checkpoints(run)[-1]
    before, now = read_state(folder), run_state(plan, accelerator)
    changed = [name for name in sorted(set(before["clips"]) | set(now["clips"]))
               if before["clips"].get(name) != now["clips"].get(name)]
    if changed:
        raise UserError(f"{run}: was trained on other clips: {', '.join(changed)}. Put them back, or start a new run.")
    if before["num_processes"] != now["num_processes"]:
        raise UserError(f"{run}: was trained by {before['num_processes']} processes, not {now['num_processes']}. "
                        f"Resume with as many, or start a new run.")
    state = load_checkpoint(folder, trained, optimizer.optimizer)
    if accelerator.scaler is not None and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    if accelerator.is_main_process:
        remove_leftovers(run)
        rewind_log(run, state["step"])
        print(f"resuming {run} after step {state['step']}")
    accelerator.wait_for_everyone()
    return state["step"]


def run_state(plan: Plan, accelerator) -> dict:
    """Return what a continuation must find unchanged, and the gradient scaler."""
    return {
        "clips": {f"{role}/{clip.path.name}": clip.digest
                  for role, clips in (("exemplar", plan.exemplars), ("regularization", plan.regularization))
                  for clip in clips},
        "num_processes": accelerator.num_processes,
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
    }


def motion_description(plan: Plan, base: Base) -> Callable[[int], MotionInfo]:
    """Return what the motion weights of a step say about themselves, as a function of the step."""
    config, versions = plan.config, library_versions()
    return lambda step: MotionInfo(config.pretrained_model_path, base.fingerprint, config.trainable_modules,
                                   config.placeholder_token, step, sample_fps(plan), config_yaml(config), versions)


def movement_report(plan: Plan, trained: Mapping[str, Tensor]) -> str:
    """Return how far each group has moved, relative to its norm in the base."""
    moved = movement(plan.base_folder, trained, plan.selected)
    lines = [f"  {group:<16} {distance:.3%}" for group, distance in moved.items()]
    return "\n".join(["moved from the base, relative to its norm", *lines])


def not_finite(what: str, step: int, windows: list[Window]) -> str:
    clips = ", ".join(window.clip.path.name for window in windows)
    return (f"step {step + 1}: the {what} is not finite, so training stopped before the weights were touched "
            f"(clips: {clips}). Try a lower learning_rate, or mixed_precision: bf16 or no, and look at these clips.")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying, so that the step under way is finished and saved."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number))
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def requested(stop: list[int], accelerator) -> bool:
    """Say whether any process was asked to stop; all learn of it in the same step."""
    if accelerator.num_processes == 1:
        return bool(stop)
    return bool(accelerator.reduce(torch.tensor(float(bool(stop)), device=accelerator.device), "sum"))
