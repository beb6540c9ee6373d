"""Runs the reliability tests with their full counts, and writes what was measured.

    python -m studies.prove_reliability --report FOLDER            # all subjects: an hour or two on a CPU
    python -m studies.prove_reliability --report FOLDER kills --count 50

The default test suite runs a seeded sample of these tests. docs/reliability.md has the figures of a full run.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from utils.arguments import fixed_seed, positive
from utils.commands import ROOT
from utils.errors import plain_errors, run_script
from utils.wording import table


def main() -> None:
    args = parse_args()
    subjects = args.subjects or sorted(available())
    codes = {subject: run(subject, args) for subject in subjects}
    print(summary(args.report))
    failed = [subject for subject, code in codes.items() if code]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    if failed:
        sys.exit(1)


def parse_args() -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        description="Run the reliability tests with their full counts."))
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", type=subject,
                        help=f"default: all of {', '.join(sorted(available()))}")
    parser.add_argument("--report", type=Path, default=Path("reliability"), help="for figures and logs")
    parser.add_argument("--count", type=positive(int),
                        help="smaller count to use instead, when time is short")
    parser.add_argument("--seed", type=fixed_seed, default=0, help="of everything random (default: 0)")
    return parser.parse_args()


def subject(text: str) -> str:
    """Parse the name of a subject."""
    if text not in available():
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(sorted(available()))}")
    return text


def available() -> set[str]:
    """Return the subjects: tests/faults/test_SUBJECT.py."""
    return {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "faults").glob("test_*.py")}


def run(subject: str, args: argparse.Namespace) -> int:
    """Run the tests of one subject with their output in a log, and return their exit code."""
    args.report.mkdir(parents=True, exist_ok=True)
    settings = {"RELIABILITY": "full", "RELIABILITY_REPORT": str(args.report.absolute()),
                "RELIABILITY_SEED": str(args.seed)}
    if args.count:
        settings["RELIABILITY_COUNT"] = str(args.count)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", f"tests/faults/test_{subject}.py"]
    with open(args.report / f"{subject}.log", "wb") as log:
        print(f"{subject}: see {log.name}", flush=True)
        return subprocess.run(command, cwd=ROOT, env=os.environ | settings, stdout=log,
                              stderr=subprocess.STDOUT).returncode


def summary(folder: Path) -> str:
    """Return a Markdown table of what was measured."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        outcomes = "; ".join(f"{number} {outcome}" for outcome, number in report["outcomes"].items())
        figures = {name: value for name, value in report.items()
                   if name not in ("subject", "seed", "count", "outcomes", "seconds")}
        more = f" {figures}" if figures else ""
        rows.append([report["subject"], report["count"], f"{outcomes}{more}", report["seconds"]])
    return "\n".join(table(["subject", "tried", "outcomes", "seconds"], rows))


if __name__ == "__main__":
    run_script(main)
