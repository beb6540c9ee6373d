"""Single frames that skip the layers along time."""

import pytest
import torch

from models.base import load_base
from models.recompute import recompute_activations
from models.single_frames import skip_temporal_layers


@pytest.fixture(params=[True, False], ids=["fast forms", "diffusers' forms"])
def unet(request, tiny_base):
    unet = load_base(str(tiny_base), fast_forms=request.param).unet.train()
    for module in unet.modules():
        if isinstance(module, torch.nn.Dropout):   # so that two passes can be equal
            module.p = 0.0
    return unet


def predict(unet, num_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(2, 4, num_frames, 8, 8, generator=generator)
    embeds = torch.randn(2, 9, 32, generator=generator)
    return unet(latents, torch.tensor([100, 800]), embeds).sample


def make_temporal_layers_identities(unet) -> None:
    """Zero the last layer of each temporal layer, to whose result the layer's input is added."""
    for name, parameter in unet.named_parameters():
        is_last = "temp_convs" in name and ".conv4." in name or "proj_out" in name and (
            "temp_attentions" in name or "transformer_in" in name)
        if is_last:
            parameter.data.zero_()


def test_single_frame_passes_as_if_temporal_layers_were_identities(unet):
    through_all = predict(unet, 1)
    assert skip_temporal_layers(unet) > 10
    skipping = predict(unet, 1)
    make_temporal_layers_identities(unet.eval())
    assert torch.equal(skipping, predict(unet, 1)) and not torch.equal(skipping, through_all)


@pytest.mark.parametrize(("num_frames", "is_training"), [(3, True), (3, False), (1, False)])
def test_videos_and_rendering_go_through_all_layers(unet, num_frames, is_training):
    before = predict(unet.train(is_training), num_frames)
    skip_temporal_layers(unet)
    assert torch.equal(before, predict(unet, num_frames))


def test_spatial_layers_get_the_same_gradient_recomputed_and_temporal_layers_get_none(unet):
    unet.requires_grad_(True)
    gradients = []
    for prepare in (lambda _: 0, recompute_activations):
        prepare(unet)
        skip_temporal_layers(unet)
        unet.zero_grad()
        predict(unet, 1).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in unet.named_parameters()})
    for name, gradient in gradients[0].items():
        if "temp_" in name or "transformer_in" in name:
            assert gradient is None and gradients[1][name] is None, name
        else:
            assert torch.equal(gradient, gradients[1][name]), name
