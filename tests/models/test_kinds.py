"""What each kind of base says about itself is true of a network that diffusers makes of that kind."""

import diffusers
import pytest
import torch

from models.base import load_base
from models.base_folder import kind_of_folder, unet_config
from models.kinds import KINDS, kind_of


@pytest.fixture(params=KINDS, ids=lambda kind: kind.pipeline)
def base(request, tiny_base, animatediff):
    loaded = load_base(str({"TextToVideoSDPipeline": tiny_base, "AnimateDiffPipeline": animatediff[0]}[
        request.param.pipeline]))
    assert loaded.kind is request.param
    return loaded


def test_kind_is_recognized_by_folder_and_by_names(base):
    names = [name for name, _ in base.unet.named_parameters()]
    assert kind_of_folder(base.folder) is kind_of(names) is base.kind
    assert kind_of(f"module.{name}" for name in names) is base.kind


def test_classes_that_it_names_are_diffusers_and_in_the_network(base):
    kind = base.kind
    assert (type(base.pipeline).__name__, type(base.unet).__name__) == (kind.pipeline, kind.unet)
    found = {type(module).__name__ for module in base.unet.modules()}
    assert {*kind.time_layers, *kind.recomputed} <= found and set(kind.time_layers) <= set(kind.recomputed)
    for name in (kind.image_pipeline, kind.image_unet, kind.adapter):
        assert name is None or hasattr(diffusers, name)


def test_layers_are_the_blocks_of_the_network_in_the_order_in_which_they_run(base):
    layers, names = list(base.kind.layers(unet_config(base.folder))), []
    for name, module in base.unet.named_modules():
        if type(module).__name__ in base.kind.recomputed:
            module.register_forward_pre_hook(lambda *_, name=name: names.append(f"{name}."))
    base.kind.predict(base.unet, torch.randn(1, 4, 2, 8, 8), torch.tensor([5]), torch.randn(1, 77, 32))
    assert [layer.name for layer in layers if layer.form not in ("resampling", "output")] == names


def test_keys_of_the_config_that_it_names_are_there(base):
    config = base.unet.config
    assert all(key in config for key in (*base.kind.head_keys, *base.kind.adapter_keys))
    assert base.kind.frames_key is None or base.kind.frames_key in config
