"""The cells of studies/ablation.py: how each changes the recipe of config.yaml, and the tables it is in."""

from dataclasses import dataclass, replace

from utils.errors import UserError

PAPER = "[cross, temporal, temp_convs]"
TABLES = {
    "weights": "Which weights",
    "regularization": "Regularization",
    "timesteps": "Timesteps",
    "exemplars": "Number of exemplars",
    "steps": "Steps",
}
TITLES_IN = {
    ("paper", "regularization"): "prior_lambda 0.15 (the demo's)",
    ("paper-alone", "regularization"): "no regularization",
    ("paper", "timesteps"): "uniform (the demo's)",
    ("paper", "exemplars"): "6 exemplars",
}


@dataclass(frozen=True)
class Cell:
    """One training: how it changes the recipe of config.yaml, and the tables that it is a row of."""

    name: str
    title: str
    tables: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    num_exemplars: int = 6

    def title_in(self, table: str) -> str:
        """Return the name of the row in a table. The unchanged recipe has another name in each."""
        return TITLES_IN.get((self.name, table), self.title)


def weights(name: str, title: str, modules: str, *tables: str) -> tuple[Cell, Cell]:
    """Return two cells that train these modules: with regularization, and without."""
    change = f"trainable_modules={modules}"
    return (Cell(name, title, ("weights", *tables), (change,)),
            Cell(f"{name}-alone", f"{title}, no regularization", ("weights",),
                 (change, "prior_preservation=false")))


def all_cells() -> list[Cell]:
    """Return every cell, the most informative first."""
    paper, paper_alone = weights("paper", "cross, temporal, convolutions (the paper's set)", PAPER,
                                 "regularization", "timesteps", "exemplars")
    paper_alone = replace(paper_alone, tables=("weights", "regularization"))
    return [
        Cell("base", "untuned base", ("weights", "regularization", "timesteps", "exemplars")),
        paper, paper_alone,
        *weights("cross", "cross-attention only", "[cross]"),
        *weights("temporal", "temporal attention and convolutions", "[temporal, temp_convs]"),
        *weights("everything", "everything", "[all]"),
        *(Cell(f"lambda-{value}", f"prior_lambda {value}{remark}", ("regularization",),
               (f"prior_lambda={value}",))
          for value, remark in (("0.5", " (the paper's)"), ("0.05", ""), ("2", ""))),
        Cell("steps", "the paper's set, over its steps", ("steps",)),
        *(Cell(f"exemplars-{num}", f"{num} exemplar{'s' * (num > 1)}", ("exemplars",), (), num)
          for num in (1, 3, 12)),
        *(Cell(f"timesteps-{name}", f"{name}{remark}", ("timesteps",), (f"train_data.sampling={name}",))
          for name, remark in (("high-level", " (the paper's)"), ("low-level", ""))),
        weights("attention", "temporal attention only", "[temporal]")[0],
        weights("convolutions", "temporal convolutions only", "[temp_convs]")[0],
        weights("cross-self", "cross- and self-attention", "[cross, self]")[0],
        Cell("lora-16", "the paper's set, as a LoRA of rank 16 at 4e-3", ("weights",),
             (f"trainable_modules={PAPER}", "lora_rank=16", "learning_rate=4e-3")),
    ]


def choose_cells(wanted: str) -> list[Cell]:
    """Return the cells of the tables and cell names in `wanted`; all cells if it is empty.

    Raises UserError if a name is unknown.
    """
    cells = all_cells()
    chosen, unknown = [], []
    for name in names(wanted) or ["all"]:
        found = [cell for cell in cells if name in ("all", cell.name, *cell.tables)]
        chosen += found
        unknown += [name] if not found else []
    if unknown:
        raise UserError(f"--cells {','.join(unknown)}: unknown. Tables: {', '.join(TABLES)}; cells: "
                        f"{', '.join(cell.name for cell in cells)}.")
    return list(dict.fromkeys(chosen))


def names(text: str) -> list[str]:
    """Return the different names in a text that has commas between them.

    A seed or motion that was named twice would be counted as two measurements.
    """
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
