"""The training command that prepare_clips.py prints, for the folder that it has made."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from training.config_text import literal
from utils.commands import ROOT, path_from_here, script_command

# OpenCV, which windows.py needs, takes long to import, and --help should not wait for it
if TYPE_CHECKING:
    from preparation.windows import Wanted

PAPERS_CONFIG = ROOT / "configs" / "zeroscope.yaml"


def train_lines(args: argparse.Namespace, wanted: "Wanted") -> str:
    """Return the command that trains on the folder."""
    if args.regularization:
        return ("train with these for regularization:\n  "
                + train_command(args, wanted, ["YOUR_EXEMPLARS"], f"train_data.class_path={args.output}"))
    return ("train; if you have a folder of ordinary clips (see --regularization), name it as "
            f"train_data.class_path:\n  {train_command(args, wanted, [args.output], *sample_prompt(args))}")


def train_command(args: argparse.Namespace, wanted: "Wanted", exemplars: list[Path | str],
                  *changes: str) -> str:
    """Return the command that trains on folders of `exemplars`, one for each motion."""
    paths = list(map(str, exemplars))
    needs_list = len(paths) > 1 or paths[0].startswith("[")
    written = json.dumps(literal(paths), ensure_ascii=False) if needs_list else paths[0]
    folders = [] if wanted.takes_folders else ["dataset_types=[folder]"]
    fps = [f"train_data.fps={args.fps:g}"] if args.fps else []
    return script_command("train_model.py", "--config", args.config or path_from_here(PAPERS_CONFIG),
                          *folders, f"train_data.path={written}", *fps, *changes)


def sample_prompt(args: argparse.Namespace) -> list[str]:
    """Return the change of the config that asks for the motion by its name."""
    return [f"validation_data.prompt=a robot doing the V* {args.motion}"] if args.motion else []
