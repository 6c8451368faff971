"""What the columns of each known data set mean: one entry a format."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

FIELDS = ("question", "answer", "images", "choices", "id", "subject", "level", "response")
"""Problem fields that a column can be mapped to."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """How a row becomes the fields of a problem."""

    columns: Mapping[str, tuple[str, ...]]
    """Problem field -> the columns it may stand in; the first that holds something is taken."""
    metadata: tuple[str, ...] = ()
    """Columns kept as metadata."""
    every_image_column: bool = False
    """Each column of `images` is a picture of its own, column N being image N."""
    read: Callable[[Fields], Fields] = lambda fields: fields
    """What the columns alone cannot express: fields in, fields out."""


def _solution_then_answer(fields: Fields) -> Fields:
    """GSM8K: the answer is what follows `####`, the text before it is the worked solution."""
    solution, mark, answer = str(fields["answer"] or "").rpartition("####")
    if not mark:
        raise ValueError("answer: expected a worked solution that ends in `#### N`")
    answer = answer.strip().replace(",", "")
    return {**fields, "answer": answer, "metadata": {"solution": solution.strip()}}


def _options_as_text(fields: Fields) -> Fields:
    """MMMU: options are the text of a Python list; the test split hides its answers as `?`.

    A list in place of an option (a row of MMMU-Pro has one) is one option: its members' text.
    """
    if fields["answer"] == "?":
        raise ValueError("answer: hidden in this split; use `split: validation` or dev")
    options = fields.get("choices")
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(f"options: expected a list, found {options[:80]!r}") from error
    if isinstance(options, list | tuple):
        if len(options) == 1 and isinstance(options[0], list | tuple):
            options = options[0]
        options = ["None" if option is None else _flat(option) for option in options]
    return {**fields, "choices": options}


def _flat(option: Any) -> Any:
    if isinstance(option, list | tuple):
        return ", ".join(str(_flat(member)) for member in option)
    return option


FORMATS = {
    "mathvision": Format(
        {
            "id": ("id",),
            "question": ("question",),
            "answer": ("answer",),
            "choices": ("options",),
            "images": ("decoded_image", "image"),
            "subject": ("subject",),
            "level": ("level",),
        },
        metadata=("solution",),
    ),
    "gsm8k": Format(
        {"question": ("question",), "answer": ("answer",)},
        read=_solution_then_answer,
    ),
    "geometry3k": Format(
        {"id": ("id",), "question": ("problem",), "answer": ("answer",), "images": ("images",)},
        metadata=("choices", "ground_truth"),
    ),
    "mmmu": Format(
        {
            "id": ("id",),
            "question": ("question",),
            "answer": ("answer",),
            "choices": ("options",),
            "images": tuple(f"image_{number}" for number in range(1, 8)),
            "subject": ("subfield",),
        },
        metadata=("question_type", "img_type", "topic_difficulty", "explanation"),
        every_image_column=True,
        read=_options_as_text,
    ),
    "mathvista": Format(
        {
            "id": ("pid",),
            "question": ("question",),
            "answer": ("answer",),
            "choices": ("choices",),
            "images": ("decoded_image", "image"),
        },
        metadata=("query", "question_type", "answer_type", "precision", "unit", "metadata"),
    ),
    "plain": Format(
        {
            "id": ("id",),
            "question": ("question",),
            "answer": ("answer",),
            "choices": ("choices", "options"),
            "images": ("images", "image"),
            "subject": ("subject",),
            "level": ("level",),
            "response": ("response",),
        },
        metadata=("pass_rate",),
    ),
}
