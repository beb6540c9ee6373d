"""The networks that a base begins with: untrained ones, or those of an earlier base."""

import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from puppets import base_networks as networks
from puppets import world
from puppets.base_captions import base_words
from puppets.tokenizer import build_tokenizer
from utils.errors import UserError


class FirstNetworks:
    """Builds the networks in the state in which training begins, anew at each call.

    `folder` is a diffusers folder, such as models/puppet-theatre, or None for untrained networks. With
    `whole_autoencoder` the encoder of an earlier base is trained on, too. Then its latents may get more
    channels. `tokenizer` knows every word of the captions, and `has_new_words` says whether the earlier base
    had another vocabulary.
    Raises UserError if `folder` holds no base, or one that does not know the words of the puppet theatre, or
    one with another number of latent channels and not `whole_autoencoder`.
    """

    def __init__(self, folder: Path | None, whole_autoencoder: bool = False):
        self.folder, self.whole_autoencoder, self.has_new_words = folder, whole_autoencoder, False
        self.tokenizer = build_tokenizer(base_words())
        if not folder:
            return
        if not (folder / "model_index.json").is_file():
            raise UserError(f"{folder}: is not a diffusers folder. Name one with --begin-with, or leave it "
                            f"out.")
        self.vocabulary = CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
        self.has_new_words = self.vocabulary != self.tokenizer.get_vocab()
        if not all(f"{word}</w>" in self.vocabulary for word in world.caption_words()):
            raise UserError(f"{folder}: its tokenizer lacks words of the puppet theatre. Leave out "
                            f"--begin-with.")
        channels = AutoencoderKL.load_config(folder / "vae")["latent_channels"]
        if channels != networks.LATENT_CHANNELS and not whole_autoencoder:
            raise UserError(f"{folder}: its latents have {channels} channels, and those of the base to be "
                            f"made have {networks.LATENT_CHANNELS}. Add --whole-autoencoder.")

    def autoencoder(self) -> AutoencoderKL:
        """Return the autoencoder. Without `whole_autoencoder` the encoder of an earlier base is frozen,
        because its UNet knows the latents that it makes."""
        if not self.folder:
            return networks.build_autoencoder()
        vae = AutoencoderKL.from_pretrained(self.folder / "vae", use_safetensors=True,
                                            torch_dtype=torch.float32)
        if not self.whole_autoencoder:
            for part in (vae.encoder, vae.quant_conv):
                part.requires_grad_(False)
            return vae
        wider = AutoencoderKL.from_config({**vae.config, "latent_channels": networks.LATENT_CHANNELS})
        # the second half of the outputs are log variances: a new channel begins with little noise
        wider.quant_conv.bias.data[networks.LATENT_CHANNELS:] = 2 * math.log(networks.MOST_NOISE)
        widen(wider, vae.state_dict(), halves=("encoder.conv_out", "quant_conv"))
        return wider

    def text_encoder(self) -> CLIPTextModel | None:
        """Return the trained text encoder of the earlier base, or None. New words have untrained
        embeddings."""
        if not self.folder:
            return None
        trained = CLIPTextModel.from_pretrained(self.folder / "text_encoder", use_safetensors=True,
                                                dtype=torch.float32)
        if not self.has_new_words:
            return trained
        text_encoder = networks.build_text_encoder(self.tokenizer)
        state, embeddings = trained.state_dict(), text_encoder.get_input_embeddings().weight.data.clone()
        (name,) = (name for name in state if name.endswith("token_embedding.weight"))
        for token, place in self.tokenizer.get_vocab().items():
            if token in self.vocabulary:
                embeddings[place] = state[name][self.vocabulary[token]]
        text_encoder.load_state_dict(state | {name: embeddings})
        return text_encoder

    def unet(self) -> UNet3DConditionModel:
        if not self.folder:
            return networks.build_unet()
        unet = UNet3DConditionModel.from_pretrained(self.folder / "unet", use_safetensors=True,
                                                    torch_dtype=torch.float32)
        if unet.config.in_channels != networks.LATENT_CHANNELS:
            channels = dict.fromkeys(("in_channels", "out_channels"), networks.LATENT_CHANNELS)
            wider = UNet3DConditionModel.from_config({**unet.config, **channels})
            widen(wider, unet.state_dict())
            unet = wider
        return networks.without_dropout(unet)


def widen(network: torch.nn.Module, state: dict[str, Tensor], halves: tuple[str, ...] = ()) -> None:
    """Load `state` into `network`, whose layers may have more inputs and outputs.

    Outputs that `state` has stay what they were, because their weights for new inputs are 0. New outputs
    keep the weights that they have in `network`. In the modules `halves`, channels are the means and then the
    log variances of a posterior. The new channels of each half come behind the old ones of that half.
    """
    wider = network.state_dict()
    for name, old in state.items():
        new, doubled = wider[name], name.startswith(halves)
        if new.shape == old.shape:
            new.copy_(old)
            continue
        outputs, *inputs = [places_of(size, num, doubled) for size, num in zip(old.shape[:2], new.shape)]
        if inputs:
            new[outputs] = 0
            new[outputs[:, None], inputs[0]] = old
        else:
            new[outputs] = old
    network.load_state_dict(wider)


def places_of(size: int, num: int, doubled: bool) -> Tensor:
    """Return where `size` channels go among `num`: to the beginning, or half by half."""
    if not doubled:
        return torch.arange(size)
    return torch.cat([torch.arange(size // 2), num // 2 + torch.arange(size // 2)])
