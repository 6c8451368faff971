"""Pictures are decoded and cut once, whoever asks, and travel by the hash of their bytes."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thinking_rl.model import image_store
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import KimiVLImageProcessor, open_image
from thinking_rl.types import ImageSource

CUT = KimiVLImageProcessor()
BYTES_EACH = 4 * 6 * 3 * 14 * 14
"""Of the patches of a picture of 84 x 56 pixels."""
GIB = 2**30


def png(seed: int) -> bytes:
    """A picture of noise, 84 x 56."""
    pixels = np.random.default_rng(seed).integers(0, 256, (56, 84, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def key_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[ImageSource]:
    """Every picture that is decoded."""
    seen: list[ImageSource] = []

    def counted(source: ImageSource, name: str = "") -> Image.Image:
        seen.append(Path(name) if name else source)
        return open_image(source, name=name)

    monkeypatch.setattr(image_store, "open_image", counted)
    return seen


def test_a_picture_is_decoded_once(opened: list, tmp_path: Path) -> None:
    file, data = tmp_path / "a.png", png(1)
    file.write_bytes(png(0))
    store = ImageStore(CUT)
    first = [store.add(file), store.add(data)]
    assert [one.hash for one in first] == [key_of(png(0)), key_of(data)]
    assert [one.grid_hw for one in first] == [(4, 6), (4, 6)]
    again = [store.add(file), store.add(data)]
    assert again == first
    store.shared([one.hash for one in first])
    store.shared([one.hash for one in first])
    assert opened == [file, data]
    assert (store.decoded, store.distinct) == (2, 2)


def test_the_patches_are_the_processors_own() -> None:
    store = ImageStore(CUT)
    key = store.add(png(3)).hash
    patches = store.shared([key])[key]
    expected = CUT.patches(open_image(png(3)))
    assert (patches.hash, patches.grid_hw) == (key, expected.grid_hw)
    assert np.array_equal(patches.pixels, expected.pixels)
    assert (patches.image_mean, patches.image_std) == (expected.image_mean, expected.image_std)


def test_equal_bytes_are_one_picture(opened: list, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        file.write_bytes(png(0))
    store = ImageStore(CUT)
    hashes = {store.add(source).hash for source in (*files, png(0))}
    assert hashes == {key_of(png(0))}
    assert len(opened) == store.decoded == store.distinct == 1


def test_the_least_recently_used_are_dropped_and_decoded_again(opened: list) -> None:
    store = ImageStore(CUT, limit_gib=2 * BYTES_EACH / GIB)
    pictures = [png(seed) for seed in range(3)]
    for picture in (pictures[0], pictures[1], pictures[0], pictures[2]):
        store.add(picture)
    assert store.held(pictures) == [key_of(pictures[0]), key_of(pictures[2])]
    assert store.decoded == 3
    back = store.shared([key_of(pictures[1])])[key_of(pictures[1])]
    assert np.array_equal(back.pixels, CUT.patches(open_image(pictures[1])).pixels)
    assert opened == [*pictures, pictures[1]]
    assert (store.decoded, store.distinct) == (4, 3)
    assert store.held(pictures) == [key_of(pictures[1]), key_of(pictures[2])]


@pytest.mark.parametrize("limit", [0, 0.5])
def test_a_picture_above_the_limit_can_be_used(limit: float) -> None:
    store = ImageStore(CUT, limit_gib=limit * BYTES_EACH / GIB)
    for seed in (0, 1):
        key = store.add(png(seed)).hash
        assert store.shared([key])[key].hash == key
        assert store.held([png(0), png(1)]) == [key]


def test_what_is_taken_is_not_decoded(opened: list) -> None:
    first = ImageStore(CUT)
    keys = [first.add(png(seed)).hash for seed in range(3)]
    opened.clear()
    second = ImageStore(CUT, limit_gib=2 * BYTES_EACH / GIB)
    second.take(first.shared(keys[:2]))
    assert [second.add(png(seed)).hash for seed in range(2)] == keys[:2]
    assert second.shared(keys[:2]) == first.shared(keys[:2])
    second.take(first.shared(keys[1:]))  # the second is there, the third takes the first's place
    assert second.held(png(seed) for seed in range(3)) == keys[1:]
    assert opened == []
    assert second.decoded == 0


def test_held_reads_no_file(opened: list, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files[:2]):
        file.write_bytes(png(number))
    store = ImageStore(CUT)
    store.add(files[0])
    assert store.held([files[1], files[0], files[2], files[0], png(0)]) == [key_of(png(0))]
    assert opened == files[:1]


def test_a_picture_is_shared_once() -> None:
    shared: list[str] = []

    def share(patches) -> str:
        shared.append(patches.hash)
        return f"reference to {patches.hash}"

    store = ImageStore(CUT, share=share)
    keys = [store.add(png(seed)).hash for seed in range(3)]
    assert shared == []  # not before it is asked for
    for wanted in (keys[:2], keys[1:], keys):
        assert store.shared(wanted) == {key: f"reference to {key}" for key in wanted}
    assert shared == keys


def at_once(count: int, work: Callable[[int], object]) -> None:
    """`work` in so many threads that start together."""
    start = threading.Barrier(count)

    def begin(number: int) -> object:
        start.wait(10)
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(begin, range(count)))


def test_threads_decode_and_share_each_picture_once(
    opened: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = image_store.open_image

    def slowly(source: ImageSource, name: str = "") -> Image.Image:
        time.sleep(0.05)  # long enough for all threads to ask
        return counted(source, name=name)

    monkeypatch.setattr(image_store, "open_image", slowly)
    pictures = [png(seed) for seed in range(4)]
    shared: list[str] = []
    store = ImageStore(CUT, share=lambda patches: shared.append(patches.hash) or patches.hash)

    def work(number: int) -> None:
        for place in range(4):
            store.shared([store.add(pictures[(number + place) % 4]).hash])

    at_once(16, work)
    assert sorted(map(key_of, opened)) == sorted(shared) == sorted(map(key_of, pictures))
    assert (store.decoded, store.distinct) == (4, 4)


def test_threads_that_share_a_small_store_get_what_they_ask_for() -> None:
    """Entries come and go under the threads' hands; none is wrong, and the count stays true."""
    store = ImageStore(CUT, limit_gib=1.5 * BYTES_EACH / GIB)
    pictures = [png(seed) for seed in range(6)]

    def work(number: int) -> None:
        for place in range(30):
            key = store.add(pictures[(number * 7 + place * place) % 6]).hash
            assert store.shared([key])[key].hash == key

    at_once(8, work)
    for picture in pictures:
        store.add(picture)
    assert store.held(pictures) == [key_of(pictures[-1])]


def test_a_file_that_cannot_be_read_is_named_and_tried_again(opened: list, tmp_path: Path) -> None:
    missing, damaged, whole = (tmp_path / f"{name}.png" for name in ("missing", "damaged", "whole"))
    damaged.write_bytes(png(0)[:300])
    whole.write_bytes(png(2))
    store = ImageStore(CUT)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"missing\.png: there is no such image file"):
            store.add(missing)
        with pytest.raises(ValueError, match=r"damaged\.png: not a readable image"):
            store.add(damaged)
    assert opened == [damaged, damaged]
    assert store.decoded == 0
    assert store.held([missing, damaged]) == []
    missing.write_bytes(png(1))
    assert store.add(missing).hash == key_of(png(1))
    assert store.add(whole).hash == key_of(png(2))
    damaged.write_bytes(png(0))
    assert store.add(damaged).hash == key_of(png(0))
    assert opened[-1] == damaged
