"""Loading a base and encoding with it, beyond what training and generation show."""

import numpy as np
import pytest
import torch

from models.base import encode_frames, enough_memory, load_base
from tests.conftest import draw_frames
from utils.errors import UserError


def test_encoded_frames_are_contiguous_however_the_autoencoder_computes(tiny_base):
    # on a CPU, training on latents with channels last kills torch 2.13
    vae = load_base(str(tiny_base)).vae.to(memory_format=torch.channels_last)
    frames = np.stack([draw_frames(1, 64, 48, seed)[0] for seed in range(3)])            # (f h w c)
    for moment in encode_frames(vae, frames).values():
        assert moment.shape == (3, 4, 6, 8) and moment.is_contiguous()


def test_addresses_of_weights_do_not_depend_on_the_file_that_held_them(tiny_base):
    """torch allocates at multiples of 64 bytes. A tensor that is mapped from a file can begin anywhere. On
    some CPUs an AnimateDiff base then trained to other weights from a whole pipeline than from an image model
    and an adapter."""
    base = load_base(str(tiny_base))
    for network in (base.unet, base.vae, base.pipeline.text_encoder):
        assert all(parameter.data_ptr() % 64 == 0 for parameter in network.parameters())


@pytest.mark.parametrize(("said", "reason"), [("no room\nfor more", "no room"), ("", "OutOfMemoryError")])
def test_too_little_memory_is_one_line_whatever_torch_says(said, reason):
    with pytest.raises(UserError, match="little memory.*can't allocate.* Lower --batch"):
        with enough_memory("Lower --batch-size."):
            torch.empty(2**55, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size"), enough_memory("Lower --batch-size."):
        torch.ones(2) + torch.ones(3)
    with pytest.raises(UserError) as refused, enough_memory("Lower --batch-size."):
        raise torch.OutOfMemoryError(said)
    assert refused.value.problems == (
        f"The device has too little memory ({reason}) Lower --batch-size.",)
