"""What every part of the recipe is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MANY = 1_000_000
"""More than any count of a recipe can mean."""
LONG = 10_000_000
"""More tokens than any length can mean."""
HUGE_GIB = 100_000
MONTH_S = 30 * 24 * 3600
LARGEST_RATE = 0.1
"""A learning rate beyond it is a slip of the pen."""
Count = Annotated[int, Field(ge=1, le=MANY)]
CountOrZero = Annotated[int, Field(ge=0, le=MANY)]
Tokens = Annotated[int, Field(ge=1, le=LONG)]
Gib = Annotated[float, Field(gt=0, le=HUGE_GIB)]
Seconds = Annotated[float, Field(gt=0, le=MONTH_S)]


class Section(BaseModel):
    """Base of every part of the recipe: unknown keys are refused, values cannot be changed."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def as_tuple(value: Any) -> Any:
    """YAML has lists only."""
    return tuple(value) if isinstance(value, list) else value
