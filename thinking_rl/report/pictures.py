"""`images/`: every picture that a recorded response shows, once, as the bytes that came."""

from __future__ import annotations

import hashlib
from pathlib import Path

from thinking_rl.files.run_folder import RunFolder

KINDS = {
    "png": ("image/png", b"\x89PNG\r\n"),
    "jpg": ("image/jpeg", b"\xff\xd8\xff"),
    "gif": ("image/gif", b"GIF8"),
    "webp": ("image/webp", b"RIFF"),
    "bmp": ("image/bmp", b"BM"),
}
"""Ending -> media type, and how such a file begins. Whatever a browser cannot show is `.bin`."""


class PictureFolder:
    """The pictures of a run, named by the hash of their bytes."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.images
        there = list(self._path.glob("*.*")) if self._path.is_dir() else []
        self._kept = {file.stem for file in there if file.suffix != ".part"}
        self.bytes = sum(file.stat().st_size for file in there)
        """Of all pictures."""

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def keep(self, key: str, data: bytes) -> None:
        """Write a picture, whole or not at all; one whose bytes are no longer those of the hash
        (a file that changed during the run) is left out.

        Raises:
            OSError: the disk is full.
        """
        if key in self._kept or hashlib.sha256(data).hexdigest() != key:
            return
        self._path.mkdir(exist_ok=True)
        file = self._path / f"{key}.{kind_of(data)}"
        part = file.with_suffix(".part")
        part.write_bytes(data)
        part.replace(file)
        self._kept.add(key)
        self.bytes += len(data)


def kind_of(data: bytes) -> str:
    """The ending that a picture's file gets, told from its first bytes."""
    return next((kind for kind, (_, start) in KINDS.items() if data.startswith(start)), "bin")


def picture_file(folder: RunFolder, key: str) -> Path | None:
    """Where a run keeps a picture, if it does. `key` may be any text: only the names of files that
    are there are compared with it, no path is built of it but for known endings."""
    if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
        return None
    files = (folder.images / f"{key}.{kind}" for kind in KINDS)
    return next((file for file in files if file.is_file()), None)
