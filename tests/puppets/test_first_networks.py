"""Training on from an earlier base: which networks stay, which are trained on, and how they can grow."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from puppets import base_networks as networks
from puppets import first_networks
from puppets.base_captions import base_words
from puppets.first_networks import FirstNetworks
from puppets.tokenizer import build_tokenizer, save_tokenizer, tokenize
from utils.errors import UserError

BUNDLED = Path("models/puppet-theatre")


@pytest.fixture(scope="module")
def first():
    return FirstNetworks(BUNDLED)


@pytest.mark.parametrize("network, file", [
    ("autoencoder", "vae/diffusion_pytorch_model"), ("text_encoder", "text_encoder/model"),
    ("unet", "unet/diffusion_pytorch_model")])
def test_networks_are_those_of_the_earlier_base_in_single_precision(first, network, file):
    expected, state = load_file(BUNDLED / f"{file}.safetensors"), getattr(first, network)().state_dict()
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in expected.items())


def test_only_the_decoder_of_the_autoencoder_is_trained_on(first):
    trained = {name.split(".")[0] for name, p in first.autoencoder().named_parameters() if p.requires_grad}
    assert trained == {"decoder", "post_quant_conv"}


def test_unet_is_trained_without_dropout(first):
    assert not any(module.p for module in first.unet().modules() if isinstance(module, torch.nn.Dropout))


def test_base_of_another_world_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a diffusers folder"):
        FirstNetworks(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "tokenizer").mkdir()
    words = ["a", "rabbit"]
    save_tokenizer(build_tokenizer(words), words, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="lacks words of the puppet theatre. Leave out --begin-with"):
        FirstNetworks(tmp_path)


def test_the_whole_autoencoder_can_be_trained_on():
    vae = FirstNetworks(BUNDLED, whole_autoencoder=True).autoencoder()
    assert all(p.requires_grad for p in vae.parameters())


def test_more_latent_channels_need_the_whole_autoencoder(monkeypatch):
    monkeypatch.setattr(networks, "LATENT_CHANNELS", networks.LATENT_CHANNELS + 2)
    with pytest.raises(UserError, match="its latents have 10 channels.* have 12. Add --whole-autoencoder"):
        FirstNetworks(BUNDLED)


@torch.no_grad()
def test_more_latent_channels_change_nothing_that_the_earlier_base_did(first, monkeypatch):
    """Its latents are the first channels of the new ones. Decoder and UNet pass over the others at first."""
    old, more = networks.LATENT_CHANNELS, 2
    vae, unet = first.autoencoder().eval(), first.unet().eval()
    monkeypatch.setattr(networks, "LATENT_CHANNELS", old + more)
    later = FirstNetworks(BUNDLED, whole_autoencoder=True)
    wider_vae, wider_unet = later.autoencoder().eval(), later.unet().eval()

    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    before, after = vae.encode(pixels).latent_dist, wider_vae.encode(pixels).latent_dist
    assert after.mean.shape == (2, old + more, 8, 8)
    assert torch.allclose(after.mean[:, :old], before.mean, atol=1e-5)
    assert torch.allclose(after.std[:, :old], before.std, atol=1e-5)
    assert 0.2 < after.std[:, old:].mean() / networks.MOST_NOISE < 5

    latents, extra = torch.randn(1, old, 4, 8, 8), torch.randn(1, more, 4, 8, 8)
    text = torch.randn(1, 32, networks.TEXT_WIDTH)
    predicted = wider_unet(torch.cat([latents, extra], dim=1), 500, text).sample
    assert torch.allclose(predicted[:, :old], unet(latents, 500, text).sample, atol=1e-4)
    assert predicted.shape[1] == old + more and predicted[:, old:].abs().max() > 0


@torch.no_grad()
def test_captions_of_the_earlier_base_mean_the_same_beside_new_words(first, monkeypatch):
    monkeypatch.setattr(first_networks, "base_words", lambda: [*base_words(), "juggling"])
    later = FirstNetworks(BUNDLED)
    assert later.has_new_words and not first.has_new_words
    assert len(later.tokenizer.tokenize("juggling")) == 1
    captions = ["two robots waving in the snow", "a cat doing the sks dance"]
    before, after = (base.text_encoder()(tokenize(base.tokenizer, captions)).last_hidden_state
                     for base in (first, later))
    assert torch.equal(before, after)
