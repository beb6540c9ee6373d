"""AnimateDiff bases: the groups of real ones, the two forms on disk, and the layers as diffusers computes
them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.base import load_base
from models.base_folder import find_adapter, find_base, most_frames, tensor_sizes, unet_config
from models.fast import use_fast_forms
from models.kinds import KINDS, kind_of
from models.recompute import recompute_activations
from models.single_frames import skip_temporal_layers
from models.tunable import select_tunable, temporal_names, union
from tests.conftest import make_animatediff
from utils.errors import UserError

ROUNDING = 2e-5   # float32, of the largest value, after all layers: sums are taken in another order


# ------------------------------------------------------------------------------------ the groups of real ones

@pytest.fixture(scope="module", params=[False, True], ids=["v3", "v2"])
def real(request) -> tuple[bool, dict[str, int]]:
    """Whether it is v2, and the sizes of the parameters of the UNet that diffusers assembles from Stable
    Diffusion 1.5 and the adapter."""
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    with torch.device("meta"):
        images = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
        unet = UNetMotionModel.from_unet2d(images, MotionAdapter(use_motion_mid_block=request.param),
                                           load_weights=False)
    return request.param, {name: parameter.numel() for name, parameter in unet.named_parameters()}


def test_groups_have_the_sizes_of_v2_and_v3(real):
    is_v2, sizes = real
    selected = select_tunable(sizes, ["cross", "self", "temporal", "all"])
    counts = {group: (len(names), sum(sizes[name] for name in names)) for group, names in selected.items()}
    assert counts["temporal"] == ((546, 453_209_280) if is_v2 else (520, 417_137_600))
    assert counts["cross"] == (32, 19_169_280) and counts["self"][0] == 32
    assert counts["all"] == (len(sizes), sum(sizes.values()))
    assert not set(selected["cross"] + selected["self"]) & set(selected["temporal"])
    assert temporal_names(sizes) == selected["temporal"]


def test_group_of_other_kinds_is_left_out_beside_others_and_an_error_alone(real):
    _, sizes = real
    assert select_tunable(sizes, ["cross", "temp_convs"]) == select_tunable(sizes, ["cross"])
    with pytest.raises(UserError, match="'temp_convs' matches no weight of the base. Known groups: cross, "):
        select_tunable(sizes, ["temp_convs"])
    with pytest.raises(UserError, match="'temp_conv' matches no weight"):
        select_tunable(sizes, ["cross", "temp_conv"])


def test_every_trained_tensor_belongs_to_a_layer_of_the_estimate(real):
    is_v2, sizes = real
    config = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "attention_head_dim": 8,
              "motion_num_attention_heads": 8, "use_motion_mid_block": is_v2,
              "down_block_types": ["CrossAttn"] * 3 + ["Down"], "up_block_types": ["Up"] + ["CrossAttn"] * 3}
    names = tuple(layer.name for layer in kind_of(sizes).layers(config))
    trained = union(select_tunable(sizes, ["cross", "self", "temporal"]))
    assert [name for name in trained if not name.startswith(names)] == []


# -------------------------------------------------------------------------------------- the two forms on disk

@pytest.mark.parametrize("has_middle", [False, True], ids=["v3", "v2"])
def test_image_model_with_an_adapter_is_the_base_that_diffusers_saves(has_middle, tmp_path):
    full, images, adapter = make_animatediff(tmp_path, has_middle=has_middle)
    whole, assembled = load_base(str(full)), load_base(str(images), adapter=str(adapter))
    assert whole.fingerprint == assembled.fingerprint and whole.kind is assembled.kind is KINDS[1]
    ours, theirs = assembled.pipeline.scheduler, whole.pipeline.scheduler
    assert type(ours) is type(theirs)
    assert {key: ours.config[key] for key in ours.config if key[0] != "_"} == \
        {key: theirs.config[key] for key in theirs.config if key[0] != "_"}
    assert tensor_sizes(full, "unet") == tensor_sizes(images, "unet", adapter) == \
        {name: parameter.numel() for name, parameter in whole.unet.named_parameters()}
    config = unet_config(images, adapter)
    assert most_frames(full) == most_frames(images, adapter) == 8
    assert list(whole.kind.layers(config)) == list(whole.kind.layers(unet_config(full)))
    assert any("mid_block.motion" in layer.name for layer in whole.kind.layers(config)) == has_middle


def test_noise_levels_are_the_adapters_and_the_prediction_is_the_image_models(animatediff, tmp_path):
    _, images, adapter = animatediff
    images = shutil.copytree(images, tmp_path / "images")
    path = images / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    config = load_base(str(images), adapter=str(adapter)).pipeline.scheduler.config
    assert (config.beta_schedule, config.prediction_type) == ("linear", "v_prediction")


def refused(base: Path, adapter: Path | None) -> str:
    with pytest.raises(UserError) as raised:
        find_adapter(str(adapter), find_base(str(base), adapter=adapter and str(adapter)))
    (problem,) = raised.value.problems
    return problem


def test_image_model_on_the_hub_without_an_adapter_is_refused_before_it_is_downloaded(
        animatediff, monkeypatch):
    _, images, adapter = animatediff
    downloaded = []

    def hf_hub_download(model: str, name: str, local_files_only: bool) -> str:
        return str((images if model == "someone/images" else adapter) / name)

    def snapshot_download(model: str, allow_patterns: list[str]) -> str:
        downloaded.append(model)
        return str(images if model == "someone/images" else adapter)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match="someone/images: is an image model"):
        find_base("someone/images")
    folder = find_base("someone/images", adapter="someone/adapter")
    assert (folder, find_adapter("someone/adapter", folder)) == (images, adapter) and not downloaded


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_pair_that_does_not_go_together_is_refused(animatediff, tiny_base, tmp_path):
    full, images, adapter = animatediff
    problem = refused(images, None)
    problem = refused(images, None)
    assert "is an image model (StableDiffusionPipeline), which makes videos only with a motion" in problem
    assert "Name one as motion_adapter_path" in problem
    for whole in (full, tiny_base):
        assert "is a text-to-video model" in (problem := refused(whole, adapter))
        assert "Leave out motion_adapter_path" in problem
    assert "is a UNet2DConditionModel, not a MotionAdapter" in refused(images, images / "unet")
    assert "nowhere: does not exist" in refused(images, tmp_path / "nowhere")
    assert "has no config.json, so it is not a motion adapter" in refused(images, images)


@pytest.mark.parametrize("changes, words", [
    ({"block_out_channels": [32, 64, 64]}, "was made for another image model than"),   # other levels, as SDXL
    ({"motion_layers_per_block": [1, 2]}, "it is for levels of 1x32, 2x64, and the model has 1x32, 1x64"),
    ({"use_motion_mid_block": True}, "mid_block.motion_modules.0.norm.weight is missing, and [64] is needed"),
    ({"conv_in_channels": 9}, "takes pictures beside the noise"),
    ({"_class_name": "SparseControlNetModel"}, "is a SparseControlNetModel, not a MotionAdapter"),
])
def test_adapter_for_another_model_is_refused(animatediff, tmp_path, changes, words):
    _, images, adapter = animatediff
    adapter = shutil.copytree(adapter, tmp_path / "adapter")
    change_config(adapter, **changes)
    assert words in refused(images, adapter)


def test_adapter_whose_tensors_do_not_fit_is_refused(animatediff, tmp_path):
    from diffusers import MotionAdapter

    _, images, adapter = animatediff
    MotionAdapter(block_out_channels=(64, 64), motion_layers_per_block=1, motion_norm_num_groups=8,
                  motion_num_attention_heads=4).save_pretrained(tmp_path / "adapter")
    shutil.copy(adapter / "config.json", tmp_path / "adapter")
    assert "down_blocks.0.motion_modules.0.norm.weight is of shape [64], and [32] is needed" in \
        refused(images, tmp_path / "adapter")


def test_adapter_that_lacks_tensors_is_named_but_sines_can_be_computed(animatediff, tmp_path):
    """The image model's folder was named, and torch's words on meta tensors."""
    _, images, adapter = animatediff
    adapter = shutil.copytree(adapter, tmp_path / "adapter")
    path = adapter / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if not name.endswith("pos_embed.pe")}, path)
    assert load_base(str(images), adapter=str(adapter)).fingerprint == \
        load_base(str(images), adapter=str(animatediff[2])).fingerprint
    save_file({name: tensor for name, tensor in tensors.items() if "attn1.to_q" not in name}, path)
    with pytest.raises(UserError) as refused:
        load_base(str(images), adapter=str(adapter))
    assert str(refused.value).startswith(f"{adapter}: lacks 6 tensors, the first down_blocks.0.")


@pytest.mark.parametrize("has_middle", [False, True])
def test_adapter_that_does_not_say_whether_it_has_a_middle_has_one(tmp_path, has_middle):
    """As diffusers takes it."""
    _, images, adapter = make_animatediff(tmp_path, has_middle=has_middle)
    config = json.loads((adapter / "config.json").read_text())
    del config["use_motion_mid_block"]
    (adapter / "config.json").write_text(json.dumps(config))
    if has_middle:
        assert find_adapter(str(adapter), images) == adapter
        assert any("mid_block.motion" in layer.name
                   for layer in KINDS[1].layers(unet_config(images, adapter)))
        load_base(str(images), adapter=str(adapter))
    else:
        assert "mid_block.motion_modules.0.norm.weight is missing, and" in refused(images, adapter)


@pytest.mark.parametrize("value", [None, [], [1], 1.5, {}])
@pytest.mark.parametrize("whose, key", [
    ("adapter", "motion_layers_per_block"), ("adapter", "motion_num_attention_heads"),
    ("images", "layers_per_block"), ("images", "attention_head_dim")])
def test_config_that_does_not_describe_layers_is_one_line(
        animatediff, run_main, tmp_path, whose, key, value):
    _, images, adapter = animatediff
    folders = {"images": shutil.copytree(images, tmp_path / "images"),
               "adapter": shutil.copytree(adapter, tmp_path / "adapter")}
    path = folders[whose] / ("unet/config.json" if whose == "images" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    code, _, err = run_main("generate_pretrained", "-m", folders["images"], "--adapter", folders["adapter"],
                            "-p", "a cat", "-o", tmp_path / "out")
    assert code == 2 and err.startswith(f"{path}: does not describe the layers of a network (")
    assert err.count("\n") == 1


def test_number_for_each_level_is_as_good_as_one_for_all(animatediff, tmp_path):
    _, images, adapter = animatediff
    adapter = shutil.copytree(adapter, tmp_path / "adapter")
    change_config(adapter, motion_layers_per_block=[1, 1], motion_num_attention_heads=[4, 4])
    base, other = (load_base(str(images), adapter=str(folder)) for folder in (animatediff[2], adapter))
    assert list(base.kind.layers(unet_config(images, adapter))) == \
        list(base.kind.layers(unet_config(images, animatediff[2])))
    assert base.unet.state_dict().keys() == other.unet.state_dict().keys()


# -------------------------------------------------------------------------- layers as diffusers computes them

@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> dict[bool, Path]:
    """A base without a motion module in the middle, as v3, and one with it, as v2."""
    folder = tmp_path_factory.mktemp("pairs")
    return {has_middle: make_animatediff(folder / str(has_middle), has_middle=has_middle)[0]
            for has_middle in (False, True)}


@pytest.fixture(params=[False, True], ids=["v3", "v2"])
def folder(request, pairs) -> Path:
    return pairs[request.param]


def training_unet(folder: Path, fast_forms: bool = True):
    return load_base(str(folder), fast_forms).unet.requires_grad_(True).train()


def pass_through(unet, num_frames: int = 6, cells: tuple[int, int] = (8, 8)):
    """Return the prediction for two clips, and the gradient of its square by parameter."""
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 4, num_frames, *cells, generator=generator)
    embeds = torch.randn(2, 77, 32, generator=generator)
    unet.zero_grad()
    prediction = KINDS[1].predict(unet, latents, torch.tensor([100, 800]), embeds).sample
    prediction.square().mean().backward()
    return prediction.detach(), {name: p.grad.clone() for name, p in unet.named_parameters()
                                 if p.grad is not None}


def assert_equal(ours, theirs) -> None:
    (prediction, gradients), (expected, expected_gradients) = ours, theirs
    assert torch.equal(prediction, expected) and gradients.keys() == expected_gradients.keys()
    assert all(torch.equal(gradients[name], expected_gradients[name]) for name in gradients)


@pytest.mark.parametrize("cells", [(8, 8), (16, 16)])   # few keys in spatial attention; more than MOST_KEYS
def test_fast_forms_are_equal_within_float32_rounding(folder, cells):
    expected, expected_gradients = pass_through(training_unet(folder, fast_forms=False), cells=cells)
    prediction, gradients = pass_through(training_unet(folder), cells=cells)
    assert (prediction - expected).abs().max() < ROUNDING * expected.abs().max()
    assert gradients.keys() == expected_gradients.keys() and len(gradients) > 300
    largest = max(gradient.abs().max() for gradient in expected_gradients.values())
    for name, gradient in gradients.items():
        assert (gradient - expected_gradients[name]).abs().max() < ROUNDING * largest, name


def test_every_layer_that_can_has_a_fast_form(folder):
    from diffusers.models.attention import FeedForward
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    unet = load_base(str(folder), fast_forms=False).unet
    classes = Attention, FeedForward, ResnetBlock2D
    layers = [module for module in unet.modules() if isinstance(module, classes)]
    assert use_fast_forms(unet) == len(layers) > 30


def test_clips_do_not_see_each_others_prompt_and_frames_see_their_own(folder):
    base = load_base(str(folder))
    latents, embeds, timesteps = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 77, 32), torch.tensor([5, 5])
    others = torch.stack([embeds[0], -embeds[1]])
    both, changed = (base.kind.predict(base.unet, latents, timesteps, prompts).sample
                     for prompts in (embeds, others))
    assert torch.equal(both[0], changed[0])
    assert all((both[1, :, frame] != changed[1, :, frame]).any() for frame in range(3))


def kept_bytes(unet) -> int:
    """Return what autograd keeps for the backward pass, weights included."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        KINDS[1].predict(unet, torch.randn(1, 4, 8, 16, 16), torch.tensor([5]), torch.randn(1, 77, 32))
    return sum(kept.values())


def test_recomputing_is_bit_equal_to_keeping_and_to_diffusers_own_switch(folder):
    keeping, ours, theirs = (training_unet(folder) for _ in range(3))
    assert recompute_activations(ours) > 15
    theirs.enable_gradient_checkpointing()
    expected = pass_through(keeping)
    assert_equal(pass_through(ours), expected)
    assert_equal(pass_through(theirs), expected)
    # diffusers' switch leaves out the transformers, so ours is used
    assert kept_bytes(ours) < 0.5 * kept_bytes(theirs)
    assert kept_bytes(theirs) < kept_bytes(keeping)


def test_single_frames_skip_the_motion_modules(folder):
    unet = training_unet(folder)
    through_all, _ = pass_through(unet, num_frames=1)
    of_video, _ = pass_through(unet, num_frames=3)
    num_modules = sum(type(module).__name__ == "AnimateDiffTransformer3D" for module in unet.modules())
    assert skip_temporal_layers(unet) == num_modules > 0
    skipping, gradients = pass_through(unet, num_frames=1)
    assert not temporal_names(gradients) and gradients
    assert torch.equal(pass_through(unet, num_frames=3)[0], of_video)
    recompute_activations(fresh := training_unet(folder))
    skip_temporal_layers(fresh)
    assert_equal(pass_through(fresh, num_frames=1), (skipping, gradients))
    for name, parameter in unet.eval().named_parameters():
        if "motion_modules" in name and "proj_out" in name:   # then a module's result is its input
            parameter.data.zero_()
    assert torch.equal(pass_through(unet, num_frames=1)[0], skipping)
    assert not torch.equal(skipping, through_all)
