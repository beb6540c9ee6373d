"""Gradient checkpointing changes memory, not numbers."""

import torch

from models.base import load_base
from models.recompute import recompute_activations


def loss_and_gradients(unet):
    torch.manual_seed(3)   # dropout too must be the same when it is recomputed
    latents, embeds = torch.randn(2, 4, 4, 8, 8), torch.randn(2, 77, 32)
    unet.zero_grad()
    loss = unet(latents, torch.tensor([100, 800]), embeds).sample.square().mean()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}


def test_loss_and_gradients_are_bit_equal_with_dropout_on(tiny_base):
    unet = load_base(str(tiny_base)).unet.requires_grad_(True).train()
    loss, gradients = loss_and_gradients(unet)
    assert recompute_activations(unet) > 20
    again, gradients_again = loss_and_gradients(unet)
    assert torch.equal(loss, again) and gradients.keys() == gradients_again.keys()
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)


def test_dropout_is_really_on_in_that_comparison(tiny_base):
    unet = load_base(str(tiny_base)).unet.train()
    latents, embeds = torch.randn(1, 4, 4, 8, 8), torch.randn(1, 77, 32)
    assert not torch.equal(unet(latents, 5, embeds).sample, unet(latents, 5, embeds).sample)


def test_fewer_activations_are_kept(tiny_base):
    unet = load_base(str(tiny_base)).unet.requires_grad_(True).train()

    def kept_bytes() -> int:
        kept = {}

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            unet(torch.randn(1, 4, 4, 8, 8), 5, torch.randn(1, 77, 32))
        return sum(kept.values())

    plain = kept_bytes()
    recompute_activations(unet)
    assert kept_bytes() < plain / 2
