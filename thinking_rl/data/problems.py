"""Problems and conversations of file and hub sources, checked row by row."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from thinking_rl.data.example import Example
from thinking_rl.data.files import Row, count_rows, data_files, read_rows
from thinking_rl.data.formats import FIELDS, FORMATS, Fields, Format
from thinking_rl.data.images import MARK, Marks, image_sources
from thinking_rl.files.hub import is_hub_id
from thinking_rl.names import did_you_mean
from thinking_rl.recipe.schema import FAMILIES, Source
from thinking_rl.types import ImageSource, Problem

ROWS_CHECKED = 8
"""How many rows `check_source` reads."""


def load_problems(
    source: Source,
    seed: int | None = None,
    pictures: bool = True,
    left_out: list[str] | None = None,
) -> Sequence[Problem]:
    """All problems of a file or hub source (of its first `source.limit` rows).

    In the source's order, or shuffled by `seed` where one is given. Ids are the source's own.
    Without `pictures` images are neither needed nor looked for, which is enough for scoring.

    Raises:
        ValueError: a file or a row cannot be used; names it, what was expected and the remedy. Rows
            that do not fit are left out instead where there is a list `left_out` to name them in.
    """
    examples = load_examples(source, pictures=pictures, left_out=left_out)
    problems = [example.problem for example in examples]
    if seed is not None:
        random.Random(str(seed)).shuffle(problems)
    return problems


def load_examples(
    source: Source,
    response_needed: bool = False,
    pictures: bool = True,
    left_out: list[str] | None = None,
) -> list[Example]:
    """Like `load_problems`, each with its response; empty where there is and need be none."""
    examples = list(_examples(source, source.limit, response_needed, pictures, left_out))
    if not examples and not left_out:
        raise ValueError(f"{source.path}: the data set is empty")
    seen: dict[str, int] = {}
    for number, example in enumerate(examples, start=1):
        first = seen.setdefault(example.problem.id, number)
        if first != number:
            raise ValueError(
                f"{source.path}: problems {first} and {number} share the id "
                f"{example.problem.id!r}; ids must be unique, map another column with "
                "`columns: {id: ...}`"
            )
    return examples


def check_source(source: Source, response_needed: bool = False) -> str:
    """Check path, columns and first rows; one line that describes the source.

    Takes well under a second and downloads nothing: a hub data set is only named.

    Raises:
        ValueError: as of `load_problems`.
    """
    if source.format == "procedural":
        families = ", ".join(source.families or FAMILIES)
        return f"procedural: without end, families {families}, levels {source.levels}"
    _check_mapping(source)
    if is_hub_id(source.path or ""):
        return f"{source.path}: no such path here, so the hub is asked for it when the run starts"
    rows = min(ROWS_CHECKED, source.limit or ROWS_CHECKED)
    if not list(_examples(source, rows, response_needed)):
        raise ValueError(f"{source.path}: the data set is empty")
    count = sum(count_rows(file) for file in data_files(source))
    count = min(count, source.limit or count)
    columns = next(read_rows(source, 1)).values
    return f"{source_name(source)}: {count} problems, columns {', '.join(columns)}"


def source_name(source: Source) -> str:
    """What reports call a source: the name of its file or folder, or its hub id."""
    if source.format == "procedural" or source.path is None:
        return source.format
    if is_hub_id(source.path):
        return source.path
    path = Path(source.path).expanduser().resolve()
    return path.stem if path.is_file() else path.name


def _check_mapping(source: Source) -> None:
    for field in source.columns:
        if field not in FIELDS:
            raise ValueError(
                f"columns: {field!r} is no field of a problem{did_you_mean(field, FIELDS)}; "
                f"expected some of {', '.join(FIELDS)}"
            )


def _examples(
    source: Source,
    limit: int | None,
    response_needed: bool,
    pictures: bool = True,
    left_out: list[str] | None = None,
) -> Iterator[Example]:
    _check_mapping(source)
    form, name = FORMATS[source.format], source_name(source)
    for index, row in enumerate(read_rows(source, limit)):
        try:
            fields = form.read(_fields(row, form, source.columns, pictures))
            example = _example(fields, default_id=str(index), name=name, pictures=pictures)
            if response_needed and not example.response:
                raise ValueError(
                    "no response to learn from; name its column with `columns: {response: ...}`"
                )
        except ValueError as error:
            if left_out is None:
                raise ValueError(f"{row.where}: {error}") from error
            left_out.append(f"{row.where}: {error}")
            continue
        yield example


def _fields(row: Row, form: Format, mapping: Mapping[str, str], pictures: bool) -> Fields:
    """Column values by problem field; `images` becomes {the source's number: picture}."""
    fields: Fields = {}
    for field in FIELDS:
        columns = (mapping[field],) if field in mapping else form.columns.get(field, ())
        is_needed = field in mapping or field in ("question", "answer")
        if field == "images" and not pictures:
            is_needed = False
        if is_needed and not any(column in row.values for column in columns):
            found = list(row.values)
            raise ValueError(
                f"no column {' or '.join(columns)} for {field}{did_you_mean(columns[0], found)}; "
                f"columns found: {', '.join(found)}; map it with `columns: {{{field}: ...}}`"
            )
        values = [row.values.get(column) for column in columns]
        if field == "images" and not pictures:
            fields[field] = {}
        elif field == "images" and form.every_image_column and field not in mapping:
            fields[field] = _numbered_images(values, row.root)
        elif field == "images":
            value = next((value for value in values if value), None)
            fields[field] = dict(enumerate(_images(value, row.root), start=1))
        else:
            fields[field] = next((value for value in values if value is not None), None)
    kept = {column: row.values.get(column) for column in form.metadata}
    fields["metadata"] = {column: value for column, value in kept.items() if value is not None}
    return fields


def _numbered_images(values: Sequence[Any], root: Path | None) -> dict[int, ImageSource]:
    """Column N holds image N or nothing."""
    numbered = {}
    for number, value in enumerate(values, start=1):
        for image in _images(value, root)[:1]:
            numbered[number] = image
    return numbered


def _images(value: Any, root: Path | None) -> list[ImageSource]:
    try:
        return image_sources(value, root)
    except ValueError as error:
        raise ValueError(f"images: {error}") from error


def _example(fields: Fields, default_id: str, name: str, pictures: bool) -> Example:
    images: dict[int, ImageSource] = fields["images"]
    marks = Marks(list(images))
    asked = _text(fields, "question")
    question = marks.rewrite(asked)
    if pictures and not images and (mark := MARK.search(asked)):
        raise ValueError(
            f"the question says {mark[0]} and there is no picture; name their column with "
            "`columns: {images: ...}`, or take the mark out"
        )
    problem = Problem(
        id=_text(fields, "id", default_id),
        question=question,
        answer=_text(fields, "answer"),
        images=tuple(images.values()),
        choices=tuple(marks.rewrite(choice) for choice in _choices(fields.get("choices"))),
        source=name,
        subject=_text(fields, "subject", ""),
        level=_level(fields.get("level")),
        metadata=fields["metadata"],
    )
    return Example(problem, _text(fields, "response", ""))


def _text(fields: Fields, field: str, default: str | None = None) -> str:
    """A text or number as text; `default` (None: an error) where there is none."""
    value = fields.get(field)
    not_a_number = isinstance(value, float) and value != value  # how tables write "missing"
    if value is None or not_a_number or (isinstance(value, str) and not value.strip()):
        if default is None:
            raise ValueError(f"{field}: missing or empty; fill it in or leave the row out")
        return default
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{field}: expected text or a number, found {type(value).__name__}")
    return _utf8(str(value), field)


def _utf8(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{field}: holds half a surrogate pair, no valid text") from error
    return text


def _choices(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(f"choices: expected a list of texts, found {type(value).__name__}")
    return [_text({"choices": choice}, "choices") for choice in value]


def _level(value: Any) -> int | None:
    text = _text({"level": value}, "level", "").removesuffix(".0")
    if not text:
        return None
    if text not in ("1", "2", "3", "4", "5"):
        raise ValueError(
            f"level: expected a whole number from 1 to 5, found {text[:40]!r}; convert it, or map "
            "another column with `columns: {level: ...}`"
        )
    return int(text)
