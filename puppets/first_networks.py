"""The networks that a base begins with: untrained ones, or those of an earlier base.

An earlier base may have noisy latent channels. The UNet cannot predict noise, so noisy channels dominate its
loss. They are dropped here, from the autoencoder and from the UNet. All other weights stay as they are.

Shapes: n frames, c channels, k channels that stay, h w pixels or latent cells, o i of a weight: out, in.
"""

from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from einops import einsum, rearrange
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from puppets import base_networks as networks
from puppets import theatre
from puppets.base_captions import base_words
from puppets.clip_stream import SEEDS
from puppets.tokenizer import build_tokenizer
from utils.errors import UserError

NOISY = 0.1      # a channel is dropped if a larger share of its deviation is noise
NUM_CLIPS = 32   # for measuring the noise


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
        if not self.folder:
            return networks.build_autoencoder()
        return without_channels(self._earlier_autoencoder(), self.kept)

    def _earlier_autoencoder(self) -> AutoencoderKL:
        return AutoencoderKL.from_pretrained(self.folder / "vae", use_safetensors=True,
                                             torch_dtype=torch.float32)

    def text_encoder(self) -> CLIPTextModel | None:
        """Return the trained text encoder of the earlier base, or None."""
        if self.folder:
            return CLIPTextModel.from_pretrained(self.folder / "text_encoder", use_safetensors=True,
                                                 dtype=torch.float32)
        return None

    def unet(self) -> UNet3DConditionModel:
        if not self.folder:
            return networks.build_unet()
        unet = UNet3DConditionModel.from_pretrained(self.folder / "unet", use_safetensors=True,
                                                    torch_dtype=torch.float32)
        unet.conv_in = sliced(unet.conv_in, inputs=self.kept)
        unet.conv_out = sliced(unet.conv_out, outputs=self.kept)
        unet.register_to_config(in_channels=len(self.kept), out_channels=len(self.kept))
        return networks.without_dropout(unet)

    @cached_property
    def kept(self) -> Tensor:
        """The latent channels of the earlier base that stay, in order."""
        vae = self._earlier_autoencoder()
        frames = theatre.draw_clips(NUM_CLIPS, SEEDS["everyday"] + 2, num_frames=4, fps=2.9).frames
        pixels = networks.to_vae_pixels(rearrange(frames, "n f h w c -> (n f) h w c"))
        shares = networks.noise_shares(*networks.encode_pixels(vae, pixels))
        if shares.min() > NOISY:
            raise UserError(f"{self.folder}: all channels of its latents are noisy. Leave out --begin-with.")
        return (shares <= NOISY).nonzero()[:, 0]


@torch.no_grad()
def without_channels(vae: AutoencoderKL, kept: Tensor) -> AutoencoderKL:
    """Return an autoencoder with the latent channels `kept` (k) of `vae`, which is not changed.

    Each of the two 1x1 convolutions, quant_conv and post_quant_conv, is merged into the 3x3 convolution next
    to it. The 3x3 convolutions can then have fewer channels. The decoder computes the same as `vae` with
    zeros in the dropped channels. Only cells at the border may differ: padding has no bias.
    """
    smaller = AutoencoderKL.from_config({**vae.config, "latent_channels": len(kept)})
    state, moments = vae.state_dict(), torch.cat([kept, kept + vae.config.latent_channels])

    to_moments = state["quant_conv.weight"][moments, :, 0, 0]                                    # (2k 2c)
    state["encoder.conv_out.weight"] = einsum(to_moments, state["encoder.conv_out.weight"],
                                              "o i, i c h w -> o c h w")
    state["encoder.conv_out.bias"] = (to_moments @ state["encoder.conv_out.bias"]
                                      + state["quant_conv.bias"][moments])

    from_latents = state["post_quant_conv.weight"][:, kept, 0, 0]                                # (c k)
    bias = state["post_quant_conv.bias"]
    center = torch.linalg.lstsq(from_latents, bias).solution                                     # (k)
    state["decoder.conv_in.bias"] = state["decoder.conv_in.bias"] + einsum(
        state["decoder.conv_in.weight"], bias - from_latents @ center, "o i h w, i -> o")
    state["decoder.conv_in.weight"] = einsum(state["decoder.conv_in.weight"], from_latents,
                                             "o i h w, i k -> o k h w")
    for name, shift in (("quant_conv", torch.zeros(len(moments))), ("post_quant_conv", center)):
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.eye(len(shift))[:, :, None, None], shift
    smaller.load_state_dict(state)
    return smaller


@torch.no_grad()
def sliced(convolution: nn.Conv2d, inputs: Tensor | None = None, outputs: Tensor | None = None) -> nn.Conv2d:
    """Return the convolution of only some of its input or output channels."""
    weight, bias = convolution.weight, convolution.bias
    weight = weight if inputs is None else weight[:, inputs]
    weight, bias = (weight, bias) if outputs is None else (weight[outputs], bias[outputs])
    new = nn.Conv2d(weight.shape[1], weight.shape[0], convolution.kernel_size, padding=convolution.padding)
    new.weight.copy_(weight)
    new.bias.copy_(bias)
    return new
