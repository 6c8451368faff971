"""Problems without their pictures, for scoring responses where the pictures are not at hand."""

from __future__ import annotations

from collections.abc import Iterator

from thinking_rl.data.files import Row, read_rows
from thinking_rl.data.formats import FIELDS, FORMATS, Fields
from thinking_rl.recipe import Source
from thinking_rl.types import Problem


def text_problems(source: Source) -> Iterator[Problem]:
    """Like `load_problems`, with no images: their files are neither needed nor looked for.

    Raises ValueError that names the file, the row and the column.
    """
    for index, row in enumerate(read_rows(source, source.limit)):
        try:
            fields = FORMATS[source.format].read(_fields(row, source))
        except ValueError as error:
            raise ValueError(f"{row.where}: {error}") from error
        level = fields["level"]
        yield Problem(
            id=str(index if fields["id"] is None else fields["id"]),
            question=str(fields["question"]),
            answer=str(fields["answer"]),
            choices=tuple(str(choice) for choice in fields["choices"] or ()),
            subject=str(fields["subject"] or ""),
            level=None if level is None else int(level),
            metadata=fields["metadata"],
        )


def _fields(row: Row, source: Source) -> Fields:
    form = FORMATS[source.format]
    columns = {**form.columns, **{field: (name,) for field, name in source.columns.items()}}
    fields: Fields = {}
    for field in FIELDS:
        values = [row.values.get(column) for column in columns.get(field, ())]
        fields[field] = next((value for value in values if value is not None), None)
    for field in ("question", "answer"):
        if fields[field] is None:
            expected, found = " or ".join(columns[field]), ", ".join(row.values)
            raise ValueError(f"no column {expected} for {field}; columns found: {found}")
    kept = {name: row.values.get(name) for name in form.metadata}
    fields["metadata"] = {name: value for name, value in kept.items() if value is not None}
    return fields
