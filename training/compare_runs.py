"""One offline page with the curves of several runs, and the keys of their configs that differ."""

from pathlib import Path

from rendering.gallery import write_page
from training.config_loading import load_config
from training.curves import HELD_OUT, LOGGED, Curves
from training.run_folder import CONFIG_NAME, LOG_NAME, read_log
from training.run_page import PAGE_NAME, curves_of, shown_config
from utils.errors import UserError, attempt

COMPARISON_NAME = "comparison.html"
MOST_RUNS = 8   # colours that can be told apart


def write_comparison(runs: list[Path]) -> Path:
    """Write comparison.html beside the first run, and return its path.

    Raises UserError with a line for each folder that is no run, or whose log is empty.
    """
    runs, problems = list(dict.fromkeys(run.resolve() for run in runs)), []
    if not 2 <= len(runs) <= MOST_RUNS:
        raise UserError(f"--compare takes 2 to {MOST_RUNS} runs, not {len(runs)}. Name their folders.")
    for run in runs:
        attempt(lambda run=run: _check(run), None, problems)
    if problems:
        raise UserError(*problems)
    configs = [shown_config(load_config(run / CONFIG_NAME)[0]) for run in runs]
    content = {"title": f"{len(runs)} runs", "runs": [], "differences": differences(configs)}
    for run, name in zip(runs, short_names(runs)):
        log = read_log(run)
        content["runs"].append(curves_of(name, Curves(LOGGED, log), Curves(HELD_OUT, log)))
    return write_page(runs[0].parent / COMPARISON_NAME, PAGE_NAME, content)


def differences(configs: list[dict[str, str]]) -> list[list[str]]:
    """Return [key, its value in each config] for the keys that are not the same in all."""
    rows = [[key, *(config[key] for config in configs)] for key in configs[0]]
    return [row for row in rows if len(set(row[1:])) > 1]


def short_names(runs: list[Path]) -> list[str]:
    """Return the names of the folders, or their whole paths if two names are the same."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _check(run: Path) -> None:
    if not (run / CONFIG_NAME).is_file():
        raise UserError(f"{run}: is not the folder of a run. Runs are in output_dir, named subject-time.")
    if not read_log(run):
        raise UserError(f"{run}: its {LOG_NAME} is empty, so there are no curves. Leave it out.")
