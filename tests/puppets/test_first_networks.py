"""Training on from an earlier base: encoder and text encoder stay, UNet and decoder are trained on."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from puppets.first_networks import FirstNetworks
from puppets.tokenizer import build_tokenizer, save_tokenizer
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
    with pytest.raises(UserError, match="other words than the puppet theatre. Leave out --begin-with"):
        FirstNetworks(tmp_path)
