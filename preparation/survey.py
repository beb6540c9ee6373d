"""What became of every file of the footage: looked at, read before, unreadable, or the same as another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preparation.analysis import Analysis, analyse
from preparation.cropping import is_too_small
from preparation.shots import Span, find_shots, find_stretches
from preparation.windows import Wanted, Window, find_windows
from utils.errors import UserError, printable
from utils.files import NotWritten


@dataclass(frozen=True)
class Surveyed:
    """One input file. Without an analysis no clip is made of it, and `problem` says why."""

    path: Path
    problem: str
    analysis: Analysis | None = None
    is_readable: bool = True
    shots: list[tuple[int, int]] = field(default_factory=list)   # (start, end) in frames
    windows: list[Window] = field(default_factory=list)          # possible clips
    spans: list[Span] = field(default_factory=list)              # what is left out before any choice


def survey(footage: Sequence[Path], cache: Path, wanted: Wanted,
           say: Callable[[str], None]) -> list[Surveyed]:
    """Look at every file; none stops the others. `say` is told of each file as it is done."""
    surveyed, first_of = [], {}
    for number, path in enumerate(footage, start=1):
        try:
            analysis = analyse(path, cache)
        except NotWritten:   # the disk is full, which is no fault of the file
            raise
        except UserError as error:
            found = without_clips(path, error, is_readable=False)
        else:
            twin = first_of.setdefault(analysis.digest, path)
            found = _look(analysis, wanted) if twin == path else Surveyed(path, f"the same file as {twin}")
        surveyed.append(found)
        say(f"[{number}/{len(footage)}] {path}: {found.problem or f'possible clips: {len(found.windows)}'}")
    return surveyed


def without_clips(path: Path, error: UserError, is_readable: bool) -> Surveyed:
    """Return the account of a file that cannot be used. `error` says why."""
    problem = error.problems[0].removeprefix(f"{printable(str(path))}: ")
    return Surveyed(path, problem, is_readable=is_readable)


def _look(analysis: Analysis, wanted: Wanted) -> Surveyed:
    info = analysis.info
    shots = find_shots(analysis)
    stretches, spans = find_stretches(analysis, shots)
    if is_too_small(info.width, info.height, wanted):
        size, trained = f"{info.width}x{info.height}", "x".join(map(str, wanted.size))
        spans = [Span(0, analysis.num_frames, f"{size} pixels, smaller than the trained size ({trained}): "
                                              f"training would enlarge it")]
        return Surveyed(analysis.path, "", analysis, shots=shots, spans=spans)
    windows, more = find_windows(analysis, stretches, wanted)
    spans = sorted([*spans, *more], key=lambda span: span.start)
    return Surveyed(analysis.path, "", analysis, shots=shots, windows=windows, spans=spans)
