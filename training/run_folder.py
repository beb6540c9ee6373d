"""The folder of a training run: its name, config, log and checkpoints, and finding the run to resume.

    output_dir/{subject}-{time}/
      config.yaml  log.jsonl  samples/step_01000/  checkpoint-1000/  motion.safetensors

motion.safetensors is written last. A run without it has not finished, nor has one whose config asks for more
steps than its motion.safetensors took: it had finished before, and trains further.
"""

import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from training.config import Config
from training.config_loading import flat_config, load_config, save_config
from utils.errors import UserError
from utils.files import free_space, replacing

CONFIG_NAME, LOG_NAME, MOTION_NAME = "config.yaml", "log.jsonl", "motion.safetensors"
# schedules of the learning rate that end at max_train_steps
STRETCHED = ("linear", "cosine", "cosine_with_restarts", "polynomial")
# keys that a continuation may change, because they do not change the learned weights
FREE_TO_CHANGE = (
    "output_dir", "checkpointing_steps", "validation_steps", "validation_data.", "report_to",
    "cached_latent_dir", "resume_from_checkpoint", "motion_dtype", "gradient_checkpointing",
    "keep_checkpoints", "held_out_steps", "push_to_hub",
    # clips and base may have moved: whether they are the same ones is checked by their content
    "pretrained_model_path", "motion_adapter_path", "train_data.path", "train_data.class_path",
    "train_data.single_video_path", "train_data.image_dir", "train_data.json_path", "train_data.video_dir",
)


def create_run(config: Config) -> Path:
    """Make a new folder for a run of `config`, with the resolved config in it."""
    time = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    for attempt in range(1, 1000):
        run = Path(config.output_dir) / (f"{config.subject}-{time}" + (f"-{attempt}" if attempt > 1 else ""))
        try:
            run.mkdir(parents=True)   # two runs started in the same second get a folder each
        except FileExistsError:
            continue
        write_config(config, run)
        return run
    raise UserError(f"{config.output_dir}: a thousand runs of this second. Clear some away.")


def write_config(config: Config, run: Path) -> None:
    """Write the resolved config into the run's folder. A continuation may have changed some keys."""
    with replacing(run / CONFIG_NAME) as partial:
        save_config(config, partial)


def find_run(config: Config, named: str | None) -> Path:
    """Return the run to resume: the run `named`, or the newest unfinished run of the config's subject.

    `named` is a run folder or a checkpoint folder. Raises UserError if there is no such run, or if its config
    differs in a key that changes the learned weights. A larger max_train_steps lets a run train further, also
    one that has finished.
    """
    if named in (None, "latest"):
        run = _newest_unfinished(config)
        if not run:
            raise UserError(f"{config.output_dir}: has no unfinished run of {config.subject!r} to resume. "
                            f"Start one without --resume.")
    else:
        run = named_run(named)
        if is_finished(run):
            _check_trains_further(run, config)
        if Path(named) != run:
            _check_is_newest(Path(named))
    differences = config_differences(run_config(run), config)
    if differences:
        raise UserError(*(f"{run}: was made with another configuration: {difference}."
                          for difference in differences),
                        f"Resume with --config {run / CONFIG_NAME}, or start a new run without --resume.")
    return run


def has_unfinished_run(config: Config) -> bool:
    """Say whether there is a run of the config's subject that has not taken all its steps."""
    return _newest_unfinished(config) is not None


def _newest_unfinished(config: Config) -> Path | None:
    runs = reversed(runs_of(config.output_dir, config.subject))
    return next((run for run in runs if not is_finished(run)), None)


def named_run(named: str | Path) -> Path:
    """Return the run folder that is named, or whose checkpoint is. Raises UserError if there is none."""
    run = run_of(Path(named))
    if run.name in ("", ".."):   # the folder has a name, which samples and pages say
        run = run.resolve()
    if not run.is_dir():
        raise UserError(f"{named}: does not exist. Runs are folders in output_dir, named subject-time.")
    if not (run / CONFIG_NAME).is_file():
        raise UserError(f"{named}: is not the folder of a run. Runs are in output_dir, named subject-time.")
    return run


def run_config(run: Path) -> Config:
    """Return the config that a run was made with."""
    return load_config(run / CONFIG_NAME)[0]


def is_finished(run: Path) -> bool:
    """Say whether a run has taken all the steps that its config asks for."""
    if not (run / MOTION_NAME).exists():
        return False
    from models.motion_weights import read_motion_info  # imported late: it needs torch

    try:
        return read_motion_info(run / MOTION_NAME).step >= run_config(run).max_train_steps
    except UserError:   # a result that cannot be read is left alone
        return True


def _check_trains_further(run: Path, config: Config) -> None:
    """Raise UserError unless `config` asks a finished run for more steps and the run kept a checkpoint."""
    if config.max_train_steps <= run_config(run).max_train_steps:
        raise UserError(f"{run}: has finished; its result is {run / MOTION_NAME}. Nothing to resume. To "
                        f"train it further, add a larger max_train_steps.")
    if not checkpoints(run):
        raise UserError(f"{run}: has finished and kept no checkpoint, so it cannot train further. Start a "
                        f"new run without --resume.")


def stretch_note(run: Path, config: Config) -> list[str]:
    """Return a note if `config` stretches the learning rate schedule of `run`; otherwise nothing."""
    before = run_config(run).max_train_steps
    if config.lr_scheduler not in STRETCHED or config.max_train_steps <= before:
        return []
    return [f"lr_scheduler: {config.lr_scheduler} is stretched from {before} to {config.max_train_steps} "
            f"steps: from here on the learning rate is that of the longer schedule"]


def _check_is_newest(checkpoint: Path) -> None:
    """Raise UserError unless `checkpoint` is the newest of its run, from which the run continues."""
    names = [folder.name for folder in checkpoints(checkpoint.parent)]
    if checkpoint.name not in names:
        raise UserError(f"{checkpoint}: does not exist. The run has {', '.join(names) or 'no checkpoints'}.")
    if checkpoint.name != names[-1]:
        raise UserError(f"{checkpoint}: a run goes on from its newest checkpoint, {names[-1]}. "
                        f"To go back further, remove the newer ones.")


def hold_run(run: Path) -> FileLock:
    """Lock `run` against other processes until this one ends. Raises UserError if another one holds it."""
    lock = FileLock(run / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{run}: is being trained by another process. Wait for it, or stop it.") from None
    return lock


def runs_of(output_dir: str | Path, subject: str) -> list[Path]:
    """Return the run folders of `subject`, oldest first."""
    pattern = re.compile(re.escape(subject) + r"-(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)(?:-(\d+))?")
    found = []
    for folder in Path(output_dir).glob("*"):
        match = pattern.fullmatch(folder.name)
        if match and (folder / CONFIG_NAME).is_file():
            found.append((match[1], int(match[2] or 1), folder))
    return [folder for _, _, folder in sorted(found)]


def config_differences(before: Config, now: Config) -> list[str]:
    """Return a line for each key that differs and would change the learned weights.

    A larger max_train_steps is no difference: the steps that were taken are those of the longer run.
    """
    trains_further = now.max_train_steps > before.max_train_steps
    free = (*FREE_TO_CHANGE, "max_train_steps") if trains_further else FREE_TO_CHANGE
    before, now = flat_config(before), flat_config(now)
    return [f"{key} was {before[key]}, is {now[key]}" for key in now
            if before[key] != now[key] and not key.startswith(free)]


def run_of(folder: Path) -> Path:
    """Return the run folder that `folder` is, or whose checkpoint it is."""
    return folder.parent if folder.name.startswith("checkpoint-") else folder


def checkpoint_dir(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step}"


def samples_dir(run: Path, step: int) -> Path:
    return run / "samples" / f"step_{step:05d}"


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoint folders of a run, in the order of their steps."""
    found = [folder for folder in run.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", folder.name)]
    return sorted(found, key=lambda folder: int(folder.name.partition("-")[2]))


def find_motion(path: str | Path) -> Path | None:
    """Return the file of motion weights for `path`: a file, a run folder or a checkpoint folder.

    For a run that has not finished yet, it is the file of its newest checkpoint. A run that trains further
    has its earlier result until the new one is whole. None if there is no such file.
    """
    path = Path(path)
    if path.is_file():
        return path
    if (path / MOTION_NAME).is_file():
        return path / MOTION_NAME
    saved = checkpoints(path)
    return saved[-1] / MOTION_NAME if saved else None


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that the run continues from the one before. Return its new path."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    if aside.exists():
        shutil.rmtree(aside)
    checkpoint.rename(aside)
    return aside


def remove_old_checkpoints(run: Path, num_kept: int | None) -> None:
    """Remove all but the newest `num_kept` checkpoints. None keeps all. The newest must be complete."""
    for folder in checkpoints(run)[:-num_kept] if num_kept else ():
        # renamed first: a kill while deleting must not leave half a checkpoint under its name
        doomed = folder.rename(folder.with_name(f".{folder.name}.old.partial"))
        shutil.rmtree(doomed)


def remove_leftovers(run: Path) -> None:
    """Remove the files that a killed process left half-written."""
    for leftover in list(run.rglob(".*.partial*")):   # a list, because some may lie inside others
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def later_samples(run: Path, step: int) -> dict[int, Path]:
    """Return {step: folder} of the samples after `step`, from which a resumed run goes on.

    The run takes these steps again, and renders these samples again. If it is longer now, its schedule is
    stretched, and its weights at these steps are other ones.
    """
    found = {int(folder.name[5:]): folder for folder in run.glob("samples/step_*")
             if re.fullmatch(r"step_\d+", folder.name)}
    return {after: folder for after, folder in found.items() if after > step}


def append_log(run: Path, entry: dict[str, Any]) -> None:
    """Add a line to log.jsonl. Raises UserError if the disk is full."""
    try:
        with open(run / LOG_NAME, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise UserError(f"{run / LOG_NAME}: could not be written ({error.strerror}). "
                        f"{free_space(run)}") from error


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the entries of log.jsonl, without a last line that a kill cut off."""
    entries = []
    path = run / LOG_NAME
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def rewind_log(run: Path, step: int) -> None:
    """Remove the entries after `step` from log.jsonl, because a resumed run writes them again."""
    kept = [json.dumps(entry) + "\n" for entry in read_log(run) if entry["step"] <= step]
    with replacing(run / LOG_NAME) as partial:
        partial.write_text("".join(kept), encoding="utf-8")
