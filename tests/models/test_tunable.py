"""Which weights train."""

import pytest
import torch

from models.tunable import select_tunable, selection_report, union
from models.zeroscope import GROUPS
from utils.errors import UserError

PAPER = ["cross", "temporal", "temp_convs"]
ZEROSCOPE = dict(
    sample_size=32, in_channels=4, out_channels=4, layers_per_block=2, cross_attention_dim=1024,
    block_out_channels=(320, 640, 1280, 1280), attention_head_dim=64, norm_num_groups=32,
    down_block_types=("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
    up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3)


@pytest.fixture(scope="module")
def zeroscope_sizes() -> dict[str, int]:
    from diffusers import UNet3DConditionModel

    with torch.device("meta"):
        unet = UNet3DConditionModel(**ZEROSCOPE)
    return {name: parameter.numel() for name, parameter in unet.named_parameters()}


def count(selected_names, sizes):
    return len(selected_names), sum(sizes[name] for name in selected_names)


def test_zeroscope_has_the_size_the_paper_trained(zeroscope_sizes):
    assert count(zeroscope_sizes, zeroscope_sizes) == (1480, 1_411_233_860)


def test_papers_set_is_826_tensors_of_zeroscope(zeroscope_sizes):
    assert count(union(select_tunable(zeroscope_sizes, PAPER)), zeroscope_sizes) == (826, 570_882_176)


@pytest.mark.parametrize("group, num_tensors",
                         [("cross", 32), ("self", 32), ("temporal", 442), ("temp_convs", 352)])
def test_group_sizes_of_zeroscope(zeroscope_sizes, group, num_tensors):
    assert len(select_tunable(zeroscope_sizes, [group])[group]) == num_tensors


def test_groups_of_the_paper_are_disjoint(zeroscope_sizes):
    selected = select_tunable(zeroscope_sizes, PAPER + ["self"])
    assert sum(map(len, selected.values())) == len(union(selected))


def test_cross_and_self_leave_temporal_attention_alone(zeroscope_sizes):
    selected = select_tunable(zeroscope_sizes, ["cross", "self"])
    assert not [name for name in union(selected) if "temp_attentions" in name or "transformer_in" in name]


def test_temporal_is_temp_attentions_and_transformer_in(zeroscope_sizes):
    selected = select_tunable(zeroscope_sizes, ["temporal", "temp_attentions"])
    extra = set(selected["temporal"]) - set(selected["temp_attentions"])
    assert extra and all(name.startswith("transformer_in.") for name in extra)


def test_all_is_everything(zeroscope_sizes):
    assert select_tunable(zeroscope_sizes, ["all"])["all"] == list(zeroscope_sizes)


def test_order_and_repetition_of_groups_change_nothing(zeroscope_sizes):
    again = union(select_tunable(zeroscope_sizes, PAPER[::-1] * 2))
    assert union(select_tunable(zeroscope_sizes, PAPER)) == again


def test_another_string_names_modules_that_contain_it(zeroscope_sizes):
    selected = select_tunable(zeroscope_sizes, ["mid_block.resnets"])["mid_block.resnets"]
    assert selected and all("mid_block.resnets" in name for name in selected)


def test_a_parameters_own_name_is_no_module():
    with pytest.raises(UserError, match="'weight' matches no weight"):
        select_tunable(["conv.weight"], ["weight"])


def test_every_group_that_matches_nothing_is_named():
    with pytest.raises(UserError) as raised:
        select_tunable(["conv_in.weight"], ["temp_conv", "all", "crosss"])
    assert [problem.split()[1] for problem in raised.value.problems] == ["'temp_conv'", "'crosss'"]
    assert all(group in str(raised.value) for group in GROUPS)


def test_report_gives_tensors_parameters_and_share(zeroscope_sizes):
    report = selection_report(select_tunable(zeroscope_sizes, PAPER), zeroscope_sizes)
    assert "826 tensors    570,882,176 parameters   40.5%" in report
