"""The networks that a base begins with: untrained ones, or those of an earlier base."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from puppets import base_networks as networks
from puppets.base_captions import base_words
from puppets.tokenizer import build_tokenizer
from utils.errors import UserError


class FirstNetworks:
    """Builds the networks in the state in which training begins, anew at each call.

    `folder` is a diffusers folder, such as models/puppet-theatre, or None for untrained networks.
    Raises UserError if `folder` holds no base, or one whose words are not the words of the puppet theatre.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder and not (folder / "model_index.json").is_file():
            raise UserError(f"{folder}: is not a diffusers folder. Name one with --begin-with, or leave it "
                            f"out.")
        if folder and (CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
                       != build_tokenizer(base_words()).get_vocab()):
            raise UserError(f"{folder}: its tokenizer has other words than the puppet theatre. Leave out "
                            f"--begin-with.")

    def autoencoder(self) -> AutoencoderKL:
        """Return the autoencoder. The encoder of an earlier base is frozen, because its UNet knows the
        latents that it makes."""
        if not self.folder:
            return networks.build_autoencoder()
        vae = AutoencoderKL.from_pretrained(self.folder / "vae", use_safetensors=True,
                                            torch_dtype=torch.float32)
        for part in (vae.encoder, vae.quant_conv):
            part.requires_grad_(False)
        return vae

    def text_encoder(self) -> CLIPTextModel | None:
        """Return the trained text encoder of the earlier base, or None."""
        if self.folder:
            return CLIPTextModel.from_pretrained(self.folder / "text_encoder", use_safetensors=True,
                                                 dtype=torch.float32)
        return None

    def unet(self) -> UNet3DConditionModel:
        if not self.folder:
            return networks.build_unet()
        return networks.without_dropout(UNet3DConditionModel.from_pretrained(
            self.folder / "unet", use_safetensors=True, torch_dtype=torch.float32))
