"""One offline page with the curves of several runs, and the keys of their configs that differ."""

from pathlib import Path

from rendering.gallery import write_page
from training.curves import HELD_OUT, LOGGED, Curves
from training.run_folder import LOG_NAME, named_run, read_log, run_config, run_of
from training.run_page import PAGE_NAME, curves_of, shown_config
from utils.errors import UserError, attempt
from utils.files import short_names

COMPARISON_NAME = "comparison.html"
MOST_RUNS = 8   # colours that can be told apart


def write_comparison(runs: list[Path]) -> Path:
    """Write comparison.html beside the first run, and return its path.

    Raises UserError with a line for each folder that is no run, or whose log is empty.
    """
    runs, problems = list(dict.fromkeys(run_of(run.resolve()) for run in runs)), []
    if not 2 <= len(runs) <= MOST_RUNS:
        raise UserError(f"--compare takes 2 to {MOST_RUNS} runs, not {len(runs)}. Name their folders.")
    for run in runs:
        attempt(lambda run=run: _check(run), None, problems)
    if problems:
        raise UserError(*problems)
    configs = [shown_config(run_config(run)) for run in runs]
    content = {"title": f"{len(runs)} runs", "runs": [], "differences": differences(configs)}
    for run, name in short_names(runs).items():
        log = read_log(run)
        content["runs"].append(curves_of(name, Curves(LOGGED, log), Curves(HELD_OUT, log)))
    return write_page(runs[0].parent / COMPARISON_NAME, PAGE_NAME, content)


def differences(configs: list[dict[str, str]]) -> list[list[str]]:
    """Return [key, its value in each config] for the keys that are not the same in all."""
    rows = [[key, *(config[key] for config in configs)] for key in configs[0]]
    return [row for row in rows if len(set(row[1:])) > 1]


def _check(run: Path) -> None:
    named_run(run)
    if not read_log(run):
        raise UserError(f"{run}: its {LOG_NAME} is empty, so there are no curves. Leave it out.")
