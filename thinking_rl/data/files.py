"""Rows of a data source: jsonl and parquet files, folders of them, and hub data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from thinking_rl.files.hub import is_hub_id
from thinking_rl.recipe.schema import Source

SUFFIXES = (".jsonl", ".parquet")
SPLITS = ("train", "testmini", "test", "validation", "val", "dev")


@dataclass(frozen=True)
class Row:
    """One row as it stands in the source."""

    where: str
    """For messages: `file, row N`, counted from 1."""
    values: dict[str, Any]
    """Column -> what stands in it."""
    root: Path | None
    """Folder that image paths are relative to; None for a hub data set without `image_root`."""


def data_files(source: Source) -> list[Path]:
    """The jsonl and parquet files of a local source, sorted by name.

    In a folder whose files are named after splits (`train-00000.parquet`) only those of
    `source.split` are read.

    Raises:
        ValueError: there is nothing to read.
    """
    assert source.path is not None  # the recipe sees to it
    path = Path(source.path).expanduser()
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path}: expected a {' or '.join(SUFFIXES)} file; convert it")
        return [path]
    if not path.is_dir():
        raise ValueError(
            f"{path}: no such file or folder (seen from {Path.cwd()}), and no hub id such as "
            "owner/name; correct `path:` of the source"
        )
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise ValueError(f"{path}: the folder holds no {' or '.join(SUFFIXES)} file")
    named = [file for file in files if _split_of(file) is not None]
    chosen = [file for file in named if _split_of(file) == source.split]
    if named and not chosen:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{path}: no file of split {source.split!r} among {names}; set `split:`")
    return chosen or files


def _split_of(file: Path) -> str | None:
    """The split that a file is named after; None for a name without one."""
    name = re.split(r"[-_.]", file.name)[0]
    return name if name in SPLITS else None


def read_rows(source: Source, limit: int | None = None) -> Iterator[Row]:
    """The rows of a source in their order, at most `limit` of them."""
    rows = _hub_rows(source) if is_hub_id(source.path or "") else _local_rows(source)
    return islice(rows, limit)


def count_rows(file: Path) -> int:
    """Number of rows of a data file, without reading what is in them."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_metadata(file).num_rows
    with file.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _local_rows(source: Source) -> Iterator[Row]:
    for file in data_files(source):
        root = Path(source.image_root).expanduser() if source.image_root else file.parent
        read = _parquet_rows if file.suffix == ".parquet" else _jsonl_rows
        for number, values in read(file):
            yield Row(f"{file}, row {number}", values, root)


def _jsonl_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers are those of the lines; blank lines are passed over."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{file}, row {number}: not valid JSON ({error}); each line must be one "
                    "JSON object in UTF-8"
                ) from error
            if not isinstance(values, dict):
                kind = type(values).__name__
                raise ValueError(f"{file}, row {number}: expected a JSON object, found {kind}")
            yield number, values


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=64):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except pa.ArrowException as error:
        raise ValueError(f"{file}: not a readable parquet file ({error})") from error


def _hub_rows(source: Source) -> Iterator[Row]:
    """Rows of a hub data set, pictures as the encoded bytes that are stored there."""
    import datasets

    assert source.path is not None
    name = source.path if source.subset is None else f"{source.path}/{source.subset}"
    try:
        table: Any = datasets.load_dataset(source.path, source.subset, split=source.split)
    except Exception as error:  # network, access rights, names: the hub raises all kinds
        raise ValueError(
            f"{name}: neither a file or folder here nor a data set that the hub gives "
            f"(split {source.split!r}): {error}"
        ) from error
    root = Path(source.image_root).expanduser() if source.image_root else None
    number = 0
    for batch in table.with_format("arrow").iter(batch_size=64):
        for values in batch.to_pylist():
            number += 1
            yield Row(f"{name} [{source.split}], row {number}", values, root)
