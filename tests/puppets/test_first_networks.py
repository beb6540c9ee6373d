"""Training on from an earlier base: channels of noise are dropped, and everything else stays."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel

from puppets import base_networks as networks
from puppets import theatre
from puppets.base_latents import reconstruction_psnr
from puppets.first_networks import FirstNetworks, without_channels
from puppets.tokenizer import build_tokenizer, save_tokenizer
from utils.errors import UserError

BUNDLED = Path("models/puppet-theatre")


@pytest.fixture(scope="module")
def first():
    return FirstNetworks(BUNDLED)


@pytest.fixture(scope="module")
def frames():
    return theatre.draw_clips(4, seed=3).frames.reshape(-1, 64, 64, 3)


def test_two_of_eight_channels_of_the_bundled_autoencoder_are_noise(first, frames):
    vae = AutoencoderKL.from_pretrained(BUNDLED / "vae", torch_dtype=torch.float32)
    shares = networks.noise_shares(*networks.encode_pixels(vae, networks.to_vae_pixels(frames)))
    assert first.kept.tolist() == [1, 2, 3, 5, 6, 7]
    assert shares[first.kept].max() < 0.1 < shares[[0, 4]].min()


def test_frames_are_coded_as_well_without_the_channels_of_noise(first, frames):
    vae = AutoencoderKL.from_pretrained(BUNDLED / "vae", torch_dtype=torch.float32)
    smaller = first.autoencoder()
    assert smaller.config.latent_channels == 6
    pixels = networks.to_vae_pixels(frames[:8])
    means, stds = networks.encode_pixels(vae, pixels)
    torch.testing.assert_close(networks.encode_pixels(smaller, pixels),
                               (means[:, first.kept], stds[:, first.kept]), atol=1e-4, rtol=1e-4)
    assert reconstruction_psnr(smaller, frames) > reconstruction_psnr(vae, frames) - 0.3


def test_decoder_computes_the_same_as_with_zeros_in_the_other_channels(first):
    vae = AutoencoderKL.from_pretrained(BUNDLED / "vae", torch_dtype=torch.float32)
    kept = torch.arange(8)   # all channels: merging the convolutions changes nothing
    latents = torch.randn(2, 8, 8, 8)
    with torch.no_grad():
        decoded = without_channels(vae, kept).decode(latents).sample
        torch.testing.assert_close(decoded, vae.decode(latents).sample, atol=1e-4, rtol=1e-4)


def test_unet_predicts_the_same_in_the_channels_that_stay(first):
    unet = UNet3DConditionModel.from_pretrained(BUNDLED / "unet", torch_dtype=torch.float32).eval()
    smaller = first.unet().eval()
    latents, words = torch.randn(1, 8, 4, 8, 8), torch.randn(1, 5, 192)
    latents[:, [0, 4]] = 0
    with torch.no_grad():
        expected = unet(latents, 500, words).sample[:, first.kept]
        assert torch.equal(smaller(latents[:, first.kept], 500, words).sample, expected)
    assert (smaller.config.in_channels, smaller.config.out_channels) == (6, 6)
    assert not any(module.p for module in smaller.modules() if isinstance(module, torch.nn.Dropout))


def test_text_encoder_stays_as_it_is(first):
    from safetensors.torch import load_file

    expected = load_file(BUNDLED / "text_encoder" / "model.safetensors")
    state = first.text_encoder().state_dict()
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in expected.items())


def test_base_of_another_world_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a diffusers folder"):
        FirstNetworks(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "tokenizer").mkdir()
    words = ["a", "rabbit"]
    save_tokenizer(build_tokenizer(words), words, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="other words than the puppet theatre. Leave out --begin-with"):
        FirstNetworks(tmp_path)
