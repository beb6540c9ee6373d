"""Samples during training: rendered as generation will render them from the motion weights of that step."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from tqdm import tqdm

from models.base import Base
from models.lora import lora_layers
from models.lora_files import Lora, without_alpha
from models.motion_weights import STORED_DTYPES
from rendering.sampling import Rendering
from rendering.video_folder import render_to_folder
from training.config import Config
from training.plan import Plan, negative_prompt, sample_fps
from training.run_folder import samples_dir
from utils.devices import DTYPES


@contextmanager
def as_generation_sees(base: Base, trained: Mapping[str, nn.Parameter], plain_forward: Callable,
                       config: Config, step: int) -> Iterator[None]:
    """Turn the pipeline into the one that generation loads from the motion weights of this step; undo it
    afterwards.

    The trained tensors are scaled and rounded as in motion.safetensors. At step 0 there is no such file, so
    they keep the base's values. Everything is in the compute precision, without autocast. So samples are
    equal to generated videos.

    Other parameters take the place of the trained ones. If the values of the trained ones were exchanged for
    values of another precision, torch would drop the hooks by which DDP sends their gradients.
    """
    unet, device = base.unet, next(iter(trained.values())).device
    dtype, stored_dtype = DTYPES[config.mixed_precision], STORED_DTYPES[config.motion_dtype]
    owners = {name: unet.get_submodule(name.rpartition(".")[0])._parameters for name in trained}
    prepared_forward, encoders = unet.forward, (base.vae, base.pipeline.text_encoder)
    scales = [(layer.scaling, dict(layer.scaling)) for layer in lora_layers(unet)]
    stored = trained
    if config.lora_rank and step:
        stored = without_alpha(trained, Lora(config.lora_rank, config.lora_alpha or config.lora_rank))
    try:
        for scaling, before in scales if step else ():
            scaling.update(dict.fromkeys(before, 1.0))   # alpha is in the stored matrices
        for name, parameter in stored.items():
            rounded = (parameter.data.to(stored_dtype) if step else parameter.data).to(dtype)
            owners[name][name.rpartition(".")[2]] = nn.Parameter(rounded, requires_grad=False)
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
            owners[name][name.rpartition(".")[2]] = parameter
        for scaling, before in scales:
            scaling.update(before)


def write_samples(plan: Plan, base: Base, run: Path, step: int, stop: list[int],
                  after_batch: Callable[[], None], share: tuple[int, int]) -> None:
    """Render the sample prompts into samples/step_N of the run. A signal in `stop` ends it after a batch.

    `after_batch` is called after each batch of prompts. The thread that writes videos may be a batch behind.
    `share`: the index of this process and the number of processes, which share the prompts out.
    """
    wanted = plan.config.validation_data
    how = Rendering(wanted.width, wanted.height, wanted.num_frames, wanted.num_inference_steps,
                    wanted.guidance_scale, negative_prompt(plan.config), wanted.sampler)
    made_with = {**base.record(), "step": step, "strength": 1.0, "motion": run.name if step else None,
                 "precision": plan.config.mixed_precision,
                 "placeholder_token": plan.config.placeholder_token}

    def until_stopped(batches: list) -> Iterator[list]:
        for batch in tqdm(batches, desc=f"samples of step {step}", leave=False, dynamic_ncols=True,
                          disable=share[0] > 0):
            if stop:
                return
            yield batch
            after_batch()

    remarks = render_to_folder(base.pipeline, plan.prompts, how, samples_dir(run, step), sample_fps(plan),
                               wanted.batch_size, made_with, overwrite=True, progress=until_stopped,
                               share=share)
    for remark in remarks:
        tqdm.write(f"samples of step {step}: {remark}")
