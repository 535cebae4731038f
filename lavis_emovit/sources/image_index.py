"""Images by name, and by frame number in their folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile
from pathlib import PurePosixPath

from lavis_emovit.errors import DataError
from lavis_emovit.files import IMAGE_SUFFIXES
from lavis_emovit.sources.frames import numbered

# OpenFace's aligned faces: number of the face, number of the frame.
_ALIGNED = re.compile(r"frame_det_(\d+)_(\d+)")


class ImageIndex:
    """`paths` are below one folder, with forward slashes."""

    def __init__(self, paths: Iterable[str]):
        self.paths = list(dict.fromkeys(paths))
        self._by_stem: dict[str, list[PurePosixPath]] = {}
        self._by_folder: dict[str, list[PurePosixPath]] = {}
        self._frames: dict[str, dict[int, str]] = {}
        self._aligned: dict[str, dict[tuple[int, int], str]] = {}
        for path in map(PurePosixPath, self.paths):
            self._by_stem.setdefault(path.stem, []).append(path)
            self._by_folder.setdefault(str(path.parent), []).append(path)

    def named(self, name: str) -> str | None:
        """The image with this path, or with the longest end of it; None without one. DataError if several fit.

        The ending of the file may be absent, and differ: tables may be about images that were converted later.
        """
        wanted = PurePosixPath(name)
        if wanted.suffix.lower() in IMAGE_SUFFIXES:
            wanted = wanted.with_suffix("")
        found = self._by_stem.get(wanted.name, [])
        scored = [(_common_end(wanted, path.with_suffix("")), str(path)) for path in found]
        best = [path for score, path in scored if score == max(scored)[0]]
        if len(best) > 1:
            raise DataError(f"the image '{name}' may be {best[0]} or {best[1]}; name the folder with `images`")
        return best[0] if best else None

    def inside(self, folder: str) -> list[str]:
        """The images in a folder, in order."""
        return sorted(map(str, self._by_folder.get(folder, ())))

    def frames(self, folder: str) -> dict[int, str]:
        """Frame number -> image, from the digits at the end of its name. DataError if two have the same number."""
        if folder not in self._frames:
            found = numbered(self._by_folder.get(folder, ()))
            self._frames[folder] = {number: str(path) for number, path in found.items()}
        return self._frames[folder]

    def aligned(self, folder: str) -> dict[tuple[int, int], str]:
        """(frame number, number of the face) -> image of the aligned face, as OpenFace names them."""
        if folder not in self._aligned:
            found = {path: _ALIGNED.fullmatch(path.stem) for path in self._by_folder.get(folder, ())}
            names = {(int(match[2]), int(match[1])): str(path) for path, match in found.items() if match is not None}
            self._aligned[folder] = names
        return self._aligned[folder]


def _common_end(one: PurePosixPath, other: PurePosixPath) -> int:
    """How many parts two paths have in common at their ends."""
    pairs = zip(reversed(one.parts), reversed(other.parts))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
