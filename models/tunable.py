"""The groups of weights that can train: temporal and cross-attention layers of a text-to-video UNet.

Parameter names are those of diffusers' UNet3DConditionModel. On the ZeroScope-size UNet (1,480 tensors, 1,411
M parameters) the paper's set [cross, temporal, temp_convs] is 826 tensors and 570,882,176 parameters. Source:
Materzynska et al. 2023, arXiv 2312.04966.
"""

import re
from collections.abc import Iterable, Mapping

from utils.errors import UserError

_IN_TEMPORAL = r"(^|\.)(temp_attentions|transformer_in)\."
GROUPS = {
    "cross": r"\.attn2\.to_[kv]\.",          # keys and values of spatial attention to the text
    "self": r"\.attn1\.to_[kv]\.",           # keys and values of spatial attention to the picture itself
    "temporal": _IN_TEMPORAL,                # attention along time, whole modules, and transformer_in
    "temp_attentions": r"(^|\.)temp_attentions\.",
    "temp_convs": r"(^|\.)temp_convs\.",     # convolutions along time
    "all": r"",
}
_SPATIAL_ONLY = ("cross", "self")   # groups without temporal attention, which has attn1 and attn2 too


def select_tunable(names: Iterable[str], groups: list[str]) -> dict[str, list[str]]:
    """Return {group: the names of the parameters it trains}. All groups together train.

    A group that is not in GROUPS means all modules whose name contains it. Raises UserError naming every
    group that matches nothing.
    """
    names = list(names)
    selected = {group: [name for name in names if _belongs(name, group)] for group in dict.fromkeys(groups)}
    known = ", ".join(GROUPS)
    problems = [f"trainable_modules: {group!r} matches no weight of the base. Known groups: {known}."
                for group, matched in selected.items() if not matched]
    if problems:
        raise UserError(*problems)
    return selected


def temporal_names(names: Iterable[str]) -> list[str]:
    """Return the names of the parameters of layers along time: attention and convolutions."""
    return [name for name in names if _belongs(name, "temporal") or _belongs(name, "temp_convs")]


def union(selected: Mapping[str, list[str]]) -> list[str]:
    """Return each selected name once, sorted, so that the order of the groups changes nothing."""
    return sorted(set().union(*selected.values()))


def selection_report(selected: Mapping[str, list[str]], num_elements: Mapping[str, int]) -> str:
    """Return a table of tensors, parameters and share of the network per group.

    `num_elements`: the number of elements of every tensor of the network.
    """
    total = sum(num_elements.values())

    def line(title: str, names: list[str]) -> str:
        num_parameters = sum(num_elements[name] for name in names)
        share = num_parameters / total
        return f"  {title:<16} {len(names):>5} tensors {num_parameters:>14,} parameters {share:7.1%}"

    lines = [line(group, names) for group, names in selected.items()]
    lines += [line("together", union(selected)), line("the network", list(num_elements))]
    return "\n".join(["training", *lines])


def _belongs(name: str, group: str) -> bool:
    if group not in GROUPS:   # modules whose name contains it; the parameter's own name does not count
        return group in name.rpartition(".")[0]
    if group in _SPATIAL_ONLY and re.search(_IN_TEMPORAL, name):
        return False
    return re.search(GROUPS[group], name) is not None
