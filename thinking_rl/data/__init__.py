"""Problems to train and evaluate on, and conversations to learn from.

Importing this room is light: no torch, ray or vllm, and pyarrow or datasets only when a source
needs them.
"""

from thinking_rl.data.example import Example
from thinking_rl.data.problems import check_source, load_problems
from thinking_rl.data.streams import (
    ExampleStream,
    ProblemStream,
    example_stream,
    fixed_problems,
    problem_stream,
)

__all__ = [
    "Example",
    "ExampleStream",
    "ProblemStream",
    "check_source",
    "example_stream",
    "fixed_problems",
    "load_problems",
    "problem_stream",
]
