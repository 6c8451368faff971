"""Problems, and an engine that answers them as it is told, for the tests of eval."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from eval.ask import Asking, Model
from eval.benchmarks.registry import get_benchmark
from rollouts.engine import Completion, Request
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.types import FinishReason, Problem, Segment

BENCHMARK = get_benchmark("gsm8k")
PROBLEMS = [Problem(str(number), f"{number} + 1?", str(number + 1)) for number in range(10)]
TEN = Asking(temperature=0.8, max_response_tokens=100)


class StandIn:
    """An engine that writes what `say` tells it; remembers every request."""

    def __init__(self, processor: KimiVLProcessor, say: Callable[[Request], str]) -> None:
        self.processor, self.say = processor, say
        self.images = ImageStore(processor.image_processor)
        self.requests: list[Request] = []
        self.calls_left = 1000

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        if self.calls_left == 0:
            raise KeyboardInterrupt
        self.calls_left -= 1
        self.requests += requests
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Completion:
        end = self.processor.tokenizer.special_token_ids["<|im_end|>"]
        ids = (*self.processor.tokenizer.text_ids(self.say(request)), end)
        longest = request.max_response_tokens
        reason = FinishReason.STOP if len(ids) <= longest else FinishReason.LENGTH
        ids = ids[:longest]
        return Completion((Segment(ids, (0.0,) * len(ids), 0),), reason)

    def model(self, max_model_tokens: int = 4096) -> Model:
        return Model(self.processor, self.images, self.generate, max_model_tokens)


def by_seed(request: Request) -> str:
    """A response that depends on the request's seed, as sampling does."""
    return f"◁think▷well◁/think▷ #### {(request.seed or 0) % 10}"


MATHVISION_ROWS = [
    {
        "id": str(number),
        "question": "What is it?\n<image1>",
        "options": options,
        "answer": answer,
        "level": 1 + number % 2,
        "subject": "algebra",
        "image": f"images/{number}.jpg",
    }
    for number, (options, answer) in enumerate(
        [([], "60"), (["3", "4 cm", "$5$", "6", "7"], "B"), ([], "$\\frac{1}{3}$")]
    )
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def mathvision_problems(folder: Path) -> list[Problem]:
    """Three problems of MATH-Vision, loaded from a file in the folder."""
    data = write_jsonl(folder / "problems.jsonl", MATHVISION_ROWS)
    return get_benchmark("mathvision").load(data, pictures=False)
