"""The fast forms of the layers give what diffusers' own forms give, up to rounding."""

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer

from models import fast
from models.base import load_base
from models.fast import MOST_KEYS, use_fast_forms
from models.recompute import recompute_activations
from models.tunable import select_tunable, union
from training.setup import select_parameters

FLOAT32_ROUNDING = 2e-5   # of the largest value, after all layers: sums are taken in another order
BF16_ROUNDING = 0.02


def plain_unet(folder):
    from diffusers import UNet3DConditionModel

    unet = UNet3DConditionModel.from_pretrained(folder, subfolder="unet").train()
    for module in unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return unet


def prediction_and_gradients(unet, cells=(8, 8), num_frames=6, precision=torch.float32):
    torch.manual_seed(3)
    latents, embeds = torch.randn(2, 4, num_frames, *cells), torch.randn(2, 77, 32)
    names = union(select_tunable(dict(unet.named_parameters()), ["cross", "temporal", "temp_convs"]))
    trained = select_parameters(unet, names)
    unet.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        prediction = unet(latents, torch.tensor([100, 800]), embeds).sample
    prediction.float().square().mean().backward()
    return prediction.detach().float(), {name: tensor.grad for name, tensor in trained.items()}


def largest_error(values, expected) -> float:
    """The largest difference, relative to the largest expected value."""
    return ((values - expected).abs().max() / expected.abs().max()).item()


def test_every_layer_of_the_four_kinds_has_a_fast_form(tiny_base):
    unet, kinds = plain_unet(tiny_base), (Attention, FeedForward, ResnetBlock2D, TemporalConvLayer)
    layers = [module for module in unet.modules() if isinstance(module, kinds)]
    assert use_fast_forms(unet) == len(layers) > 15


@pytest.mark.parametrize("cells", [(8, 8), (16, 8)])   # few keys; more than MOST_KEYS in spatial attention
def test_prediction_and_gradients_are_equal_within_float32_rounding(tiny_base, cells):
    expected, expected_gradients = prediction_and_gradients(plain_unet(tiny_base), cells)
    fast = plain_unet(tiny_base)
    use_fast_forms(fast)
    prediction, gradients = prediction_and_gradients(fast, cells)
    assert largest_error(prediction, expected) < FLOAT32_ROUNDING
    assert gradients.keys() == expected_gradients.keys() and len(gradients) > 100
    largest = max(gradient.abs().max() for gradient in expected_gradients.values())
    for name, gradient in gradients.items():
        assert (gradient - expected_gradients[name]).abs().max() < FLOAT32_ROUNDING * largest, name


def test_bf16_is_as_close_to_float32_as_the_plain_path(tiny_base):
    expected, _ = prediction_and_gradients(plain_unet(tiny_base))
    plain, fast = plain_unet(tiny_base), plain_unet(tiny_base)
    use_fast_forms(fast)
    errors = [largest_error(prediction_and_gradients(unet, precision=torch.bfloat16)[0], expected)
              for unet in (plain, fast)]
    assert 1e-4 < errors[0] < BF16_ROUNDING and errors[1] < 1.5 * errors[0]


def test_a_clip_does_not_see_the_prompt_of_its_neighbour(tiny_base):
    unet = plain_unet(tiny_base).eval()
    use_fast_forms(unet)
    latents, embeds = torch.randn(2, 4, 6, 8, 8), torch.randn(2, 77, 32)
    with torch.no_grad():
        together = unet(latents, torch.tensor([100, 800]), embeds).sample
        alone = unet(latents[1:], torch.tensor([800]), embeds[1:]).sample
        changed = unet(latents, torch.tensor([100, 800]), torch.stack([embeds[0] + 1, embeds[1]])).sample
    assert largest_error(together[1:], alone) < FLOAT32_ROUNDING
    assert torch.equal(together[1], changed[1]) and not torch.equal(together[0], changed[0])


def test_dropout_of_the_temporal_convolutions_stays(tiny_base):
    unet = plain_unet(tiny_base)
    for module in unet.modules():
        if isinstance(module, TemporalConvLayer):
            module.conv2[2].p = 0.5
    use_fast_forms(unet)
    latents, embeds = torch.randn(1, 4, 4, 8, 8), torch.randn(1, 77, 32)
    assert not torch.equal(unet(latents, 5, embeds).sample, unet(latents, 5, embeds).sample)


def test_recomputing_fast_forms_changes_nothing(tiny_base):
    unet = plain_unet(tiny_base)
    use_fast_forms(unet)
    expected, expected_gradients = prediction_and_gradients(unet)
    recompute_activations(unet)
    prediction, gradients = prediction_and_gradients(unet)
    assert torch.equal(prediction, expected)
    assert all(torch.equal(gradients[name], expected_gradients[name]) for name in gradients)


def test_a_loaded_base_has_the_fast_forms_and_exports_as_diffusers_knows_it(tiny_base, tmp_path):
    from diffusers import DiffusionPipeline

    pipeline = load_base(str(tiny_base)).pipeline
    assert {type(processor).__name__ for processor in pipeline.unet.attn_processors.values()} == {
        "ShortAttention"}
    pipeline.save_pretrained(tmp_path / "exported")
    again = DiffusionPipeline.from_pretrained(tmp_path / "exported").unet
    latents, embeds = torch.randn(1, 4, 4, 8, 8), torch.randn(1, 77, 32)
    with torch.no_grad():
        expected, prediction = (unet.eval()(latents, 5, embeds).sample for unet in (again, pipeline.unet))
    assert largest_error(prediction, expected) < FLOAT32_ROUNDING


def test_more_sequences_than_a_grid_has_rows_are_attended_to_in_parts(tiny_base, monkeypatch):
    """Of a GPU's grid; here it has 7 rows."""
    unet, num_calls = load_base(str(tiny_base)).unet, []
    fused = torch.nn.functional.scaled_dot_product_attention

    def counted(query, *others, **more):
        num_calls[-1] += 1
        assert num_calls[1:] == [] or len(query) <= 7
        return fused(query, *others, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    monkeypatch.setattr(fast, "MOST_KEYS", 0)   # no plain products
    found = []
    for most in (fast.MOST_SEQUENCES, 7):
        monkeypatch.setattr(fast, "MOST_SEQUENCES", most)
        num_calls.append(0)
        found.append(prediction_and_gradients(unet))
    assert num_calls[1] > num_calls[0] > 0 and torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


def test_more_keys_than_plain_products_are_good_for_go_to_the_fused_kernel(tiny_base, monkeypatch):
    from torch.nn import functional

    fused, seen = functional.scaled_dot_product_attention, []

    def noted(query, key, value, **kwargs):
        seen.append(key.shape[2])
        return fused(query, key, value, **kwargs)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    unet = load_base(str(tiny_base)).unet
    with torch.no_grad():
        unet(torch.randn(1, 4, 4, 16, 16), 5, torch.randn(1, 77, 32))
    assert seen and min(seen) > MOST_KEYS
