"""Reports of runs and suites: one HTML file without scripts or external files, or the same tables as Markdown or LaTeX.

All numbers are computed from the predictions, so a report can be written for any folder, at any time, finished or not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.report.entry import report_entry, side_by_side
from lavis_emovit.evaluation.report.folder import Folder, read_folder
from lavis_emovit.evaluation.report.render import render
from lavis_emovit.files import atomic_writer

_FORMATS = {".html": "html", ".htm": "html", ".md": "md", ".tex": "tex"}


def write_report(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of one run or suite, finished or not; returns its path.

    Args:
        out: the file; its suffix is the format: `.html`, `.md` or `.tex`. None: `report.html` in the folder.
        summary: what metrics.json of a suite contains, if it was just computed; None computes it from the rows.

    Raises:
        DataError: not a folder of a run or suite, predictions that cannot be used, or an unknown suffix.
    """
    found = read_folder(folder, summary)
    return _write([found], Path(out) if out is not None else found.path / "report.html")


def write_comparison(
    folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, reload_s: float | None = None
) -> Path:
    """Write one report of several runs or suites, compared with the first of them.

    Args:
        reload_s: seconds after which a browser reads the page again; None: never.

    Raises:
        DataError: as `write_report`, and for no folder at all.
    """
    if not folders:
        raise DataError("there are no folders to report on; pass at least one")
    found = [read_folder(folder) for folder in folders]
    for one in found:
        one.label = _unique_label(one.path, [other.path for other in found])
        one.name = one.label if one.is_run else one.name
    return _write(found, Path(out), reload_s)


def _write(folders: list[Folder], out: Path, reload_s: float | None = None) -> Path:
    if out.is_dir():
        raise DataError(f"{out}: is a folder; use the name of an HTML, Markdown or LaTeX file")
    text_format = _FORMATS.get(out.suffix.lower())
    if text_format is None:
        raise DataError(f"{out}: the name of a report must end in .html, .md or .tex")
    entries = [report_entry(folder, f"r{place}") for place, folder in enumerate(folders, start=1)]
    together = side_by_side(folders)
    text = render(f"report.{text_format}.jinja", entries=entries, together=together, reload_s=reload_s)
    with atomic_writer(out) as file:
        file.write(text)
    return out


def _unique_label(path: Path, paths: Sequence[Path]) -> str:
    """As many of the last parts of a path as make it different from the others."""
    labels = ["/".join(path.parts[-length:]) for length in range(1, len(path.parts))]
    others = [f"/{other.as_posix()}" for other in paths if other != path]
    return next((label for label in labels if not any(one.endswith(f"/{label}") for one in others)), path.name)
