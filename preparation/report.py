"""The report: what became of every file, which clips were cut and why, what was left out and why.

report.json holds it; the page review.html and the lines on the terminal are made from it.
"""

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from preparation.analysis import Analysis
from preparation.footage import Cut
from preparation.survey import Surveyed
from preparation.windows import Window, times_of
from utils.errors import printable
from utils.wording import counted, first_few

REPORT_NAME = "report.json"
DROPPED = "dropped by you"


def make_report(surveyed: Sequence[Surveyed], chosen: Sequence[Window], left: Sequence[Window],
                cuts: Sequence[Cut], captions: Sequence[str]) -> tuple[dict, list[str]]:
    """Return the report, and the pictures (data URIs) of its entries `left_out`, in their order."""
    clips = [_clip_entry(window, cut, caption)
             for window, cut, caption in zip(chosen, cuts, captions, strict=True)]
    left_out, stills = [], []
    for found in surveyed:
        if found.analysis is None:
            continue
        spans = [(span.start, span.end, span.reason) for span in found.spans]
        spans += [(*window.span, window.reason) for window in left if window.analysis is found.analysis]
        for start, end, reason in sorted(spans):
            left_out.append({"source": _name(found.path), **_times(found.analysis, start, end),
                             "reason": reason})
            still = found.analysis.still_at((start + end) // 2)
            stills.append("data:image/jpeg;base64," + base64.b64encode(still).decode())
    inputs = [_input_entry(found, clips, left_out) for found in surveyed]
    return {"inputs": inputs, "clips": clips, "left_out": left_out}, stills


def report_lines(report: dict) -> list[str]:
    """Return what the terminal shows: a line per input file, and below it its clips and what was left out."""
    lines = []
    for entry in report["inputs"]:
        lines.append(f"{entry['file']}: {entry['status']}" + (f" ({entry['why']})" if entry["why"] else ""))
        for clip in report["clips"]:
            if clip["source"] == entry["file"]:
                why = clip["why"] if clip["kept"] else DROPPED
                lines.append(f"  {clip['time']} -> {clip['file']}: {why}")
        reasons = {}
        for part in report["left_out"]:
            if part["source"] == entry["file"]:
                reasons.setdefault(part["reason"], []).append(part["time"])
        for reason, times in reasons.items():
            lines.append(f"  left out {first_few(times, 3)}: {reason}")
    counts = Counter(entry["status"] for entry in report["inputs"])
    statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
    num_kept = sum(clip["kept"] for clip in report["clips"])
    return [*lines, f"{counted(len(report['inputs']), 'file')}: {statuses}. {counted(num_kept, 'clip')}."]


def with_statuses(report: dict) -> dict:
    """Return `report` with the status of every file that clips were cut from: "used" if one of them is kept,
    "dropped" if the user dropped them all."""
    kept, cut = ({clip["source"] for clip in clips} for clips in
                 ([clip for clip in report["clips"] if clip["kept"]], report["clips"]))
    return report | {"inputs": [
        entry | {"status": "used" if entry["file"] in kept else "dropped"} if entry["file"] in cut else entry
        for entry in report["inputs"]]}


def _clip_entry(window: Window, cut: Cut, caption: str) -> dict:
    return {"file": cut.path.name, "caption": caption, "proposed": caption, "kept": True,
            "source": _name(window.analysis.path), "digest": window.analysis.digest,
            **_times(window.analysis, *window.span),
            "num_frames": len(cut.frames), "fps": round(cut.fps, 3), "box": cut.box, "size": cut.size,
            "why": window.reason}


def _input_entry(found: Surveyed, clips: list[dict], left_out: list[dict]) -> dict:
    entry = {"file": _name(found.path), "status": "used", "why": ""}
    if found.analysis is None:
        return entry | {"status": "left out" if found.is_readable else "unreadable", "why": found.problem}
    analysis, info = found.analysis, found.analysis.info
    if not any(clip["source"] == entry["file"] for clip in clips):
        reasons = Counter()   # the one that holds for longest is told
        for part in left_out:
            if part["source"] == entry["file"]:
                reasons[part["reason"]] += part["end"] - part["start"]
        entry |= {"status": "left out", "why": reasons.most_common(1)[0][0] if reasons else "too short"}
    if analysis.damage:
        damage = f"the decoder found it damaged: {analysis.damage}"
        entry["why"] = "; ".join(filter(None, [entry["why"], damage]))
    return entry | {"digest": analysis.digest, "num_frames": analysis.num_frames,
                    "fps": round(analysis.fps, 4), "width": info.width, "height": info.height,
                    "shots": [_times(analysis, *shot) for shot in found.shots]}


def _name(path: Path) -> str:
    return printable(str(path))   # names need not be text


def _times(analysis: Analysis, start: int, end: int) -> dict:
    return {"start": start, "end": end, "time": times_of(analysis, start, end)}
