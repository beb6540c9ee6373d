"""Choosing the weights that train: named groups, and all modules whose name contains a text.

Each kind of base defines its groups: GROUPS in models/zeroscope.py and models/animatediff.py.
"""

import re
from collections.abc import Iterable, Mapping

from models.base_kind import BaseKind
from models.kinds import KINDS, kind_of
from utils.errors import UserError

ALL_GROUPS = {group for kind in KINDS for group in kind.groups}


def select_tunable(names: Iterable[str], groups: list[str]) -> dict[str, list[str]]:
    """Return {group: the names of the parameters it trains}. All groups together train.

    A text that names no group means all modules whose name contains it. A group that only other kinds of
    bases have is left out, if another one matches. Raises UserError naming every group that matches nothing.
    """
    names = list(names)
    kind = kind_of(names)
    selected = {group: [name for name in names if _belongs(name, group, kind)]
                for group in dict.fromkeys(groups)}
    if any(selected.values()):
        foreign = ALL_GROUPS - kind.groups.keys()
        selected = {group: matched for group, matched in selected.items() if matched or group not in foreign}
    known = ", ".join(kind.groups)
    problems = [f"trainable_modules: {group!r} matches no weight of the base. Known groups: {known}."
                for group, matched in selected.items() if not matched]
    if problems:
        raise UserError(*problems)
    return selected


def temporal_names(names: Iterable[str]) -> list[str]:
    """Return the names of the parameters of layers along time: attention and convolutions."""
    names = list(names)
    kind = kind_of(names)
    return [name for name in names if kind.is_along_time(name)]


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


def _belongs(name: str, group: str, kind: BaseKind) -> bool:
    if group not in kind.groups:   # modules whose name contains it; the parameter's own name does not count
        return group in name.rpartition(".")[0]
    return re.search(kind.groups[group], name) is not None
