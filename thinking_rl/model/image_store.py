"""Every picture of a run, decoded and cut once, and found by the hash of its bytes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from thinking_rl.model.images import (
    CutImage,
    ImagePatches,
    KimiVLImageProcessor,
    open_image,
    read_image,
)
from thinking_rl.types import ImageSource

LIMIT_GIB = 4.0


def hash_of(data: bytes) -> str:
    """The key of a picture: SHA-256 of its encoded bytes."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class _Entry:
    """A picture that was cut."""

    image: CutImage
    """Hash and grid."""
    patches: ImagePatches | None
    """None once they are shared."""
    num_bytes: int
    """Of its patches."""
    shared: Any = None
    """What `share` made of the patches."""


class ImageStore:
    """Pictures go in as files or encoded bytes, and travel by their hash.

    The least recently used are dropped beyond `limit_gib` of patches, and decoded again where they
    come back: within the limit a picture is decoded once a run. Safe to use from several threads.
    """

    def __init__(
        self,
        processor: KimiVLImageProcessor,
        limit_gib: float = LIMIT_GIB,
        share: Callable[[ImagePatches], Any] = lambda patches: patches,
    ) -> None:
        """share: puts patches where other processes find them (such as `ray.put`), at the first
        time that they are asked for there."""
        self._cut = processor.patches
        self._limit_bytes = limit_gib * 2**30
        self._share = share
        self._lock = Lock()
        self._entries: OrderedDict[str, Future[_Entry]] = OrderedDict()
        self._sources: dict[str, ImageSource] = {}
        self._hash_of_file: dict[Path, str] = {}
        self._seen: set[str] = set()
        self._bytes = 0
        self.decoded = 0
        """Pictures decoded so far, each time counted."""

    @property
    def distinct(self) -> int:
        """Different pictures decoded so far; those that were taken are counted where they were
        decoded."""
        return len(self._seen)

    def add(self, source: ImageSource) -> CutImage:
        """A picture's hash and grid.

        Raises:
            ValueError: it is missing, is no picture, is damaged, or is too large.
        """
        key = self._hash_of_file.get(source) if isinstance(source, Path) else None
        if key is None:
            key = hash_of(read_image(source))
            with self._lock:
                self._sources.setdefault(key, source)
                if isinstance(source, Path):
                    self._hash_of_file[source] = key
        return self._entry(key).image

    def encoded(self, key: str) -> bytes:
        """The bytes that a picture which was added came as; a file is read again.

        Raises:
            ValueError: the file is gone.
        """
        return read_image(self._sources[key])

    def take(self, patches: Mapping[str, ImagePatches]) -> None:
        """Pictures that another process has cut; they are not decoded here."""
        for key, one in patches.items():
            entry = _Entry(CutImage(key, one.grid_hw), one, one.pixels.nbytes)
            with self._lock:
                if key not in self._entries:
                    self._entries[key] = future = Future()
                    future.set_result(entry)
                    self._bytes += entry.num_bytes
            self._drop_old(keep=key)

    def held(self, sources: Iterable[ImageSource]) -> list[str]:
        """Hashes of those pictures whose patches are at hand, without reading any file anew."""
        keys = dict.fromkeys(
            self._hash_of_file.get(source, "") if isinstance(source, Path) else hash_of(source)
            for source in sources
        )
        return [key for key in keys if key in self._entries]

    def shared(self, hashes: Iterable[str]) -> dict[str, Any]:
        """What `share` made of the patches, by hash."""
        return {key: self._shared(self._entry(key)) for key in hashes}

    def _shared(self, entry: _Entry) -> Any:
        with self._lock:
            if entry.shared is None:
                assert entry.patches is not None
                entry.shared, entry.patches = self._share(entry.patches), None
            return entry.shared

    def _entry(self, key: str) -> _Entry:
        """The picture's entry, cut now where it is new or was dropped; whoever comes first cuts."""
        with self._lock:
            future = self._entries.get(key)
            is_mine = future is None
            if future is None:
                future = self._entries[key] = Future()
            self._entries.move_to_end(key)
        if is_mine:
            try:
                future.set_result(self._decode(key))
            except BaseException as error:
                self._forget(key)
                future.set_exception(error)
            else:
                self._drop_old(keep=key)
        return future.result()

    def _forget(self, key: str) -> None:
        """What could not be used is read anew when it comes again: it may have been mended."""
        with self._lock:
            del self._entries[key]
            if key not in self._seen:
                source = self._sources.pop(key, None)
                if isinstance(source, Path):
                    self._hash_of_file.pop(source, None)

    def _decode(self, key: str) -> _Entry:
        source = self._sources[key]
        data = read_image(source)
        if hash_of(data) != key:
            raise ValueError(f"{source}: the picture has changed since the run began; put it back")
        name = "" if isinstance(source, bytes) else str(source)
        patches = replace(self._cut(open_image(data, name=name)), hash=key)
        with self._lock:
            self.decoded += 1
            self._seen.add(key)
            self._bytes += patches.pixels.nbytes
        return _Entry(CutImage(key, patches.grid_hw), patches, patches.pixels.nbytes)

    def _drop_old(self, keep: str) -> None:
        with self._lock:
            for key, future in list(self._entries.items()):
                if self._bytes <= self._limit_bytes:
                    return
                if key != keep and future.done():
                    self._bytes -= future.result().num_bytes
                    del self._entries[key]
