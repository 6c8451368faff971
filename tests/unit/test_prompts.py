"""A problem on its way to an engine and back: prompt, request, response."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from rollouts.collect import collect
from rollouts.engine import Completion, Request, placeholder_runs
from rollouts.prompts import Prompt, Sampling, render_prompt, request_seed
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.processing import KimiVLProcessor, load_processor, problem_messages
from thinking_rl.types import FinishReason, Problem, Segment


@pytest.fixture(scope="module")
def processor(tiny_checkpoint: Path) -> KimiVLProcessor:
    return load_processor(tiny_checkpoint)


@pytest.fixture
def images(processor: KimiVLProcessor) -> ImageStore:
    return ImageStore(processor.image_processor)


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "blue").save(stream, "PNG")
    return stream.getvalue()


WIDE, HIGH = png(84, 28), png(28, 56)
PICTURED = Problem("p", "Is <image2> higher than <image1>?", "yes", images=(WIDE, HIGH))
SAMPLING = Sampling(samples=3, max_response_tokens=9, temperature=0.7, top_p=0.9, seed=5)


def test_a_prompt_is_what_the_processor_renders(processor, images: ImageStore) -> None:
    prompt = render_prompt(processor, images, PICTURED, "Box it.")
    rendered = processor.render(problem_messages(PICTURED, "Box it."))
    assert prompt.token_ids == tuple(rendered.token_ids)
    runs = placeholder_runs(prompt.token_ids, processor.media_token_id)
    assert [length for _, length in runs] == [2, 3] == [one.num_tokens for one in prompt.images]
    hashes = [hashlib.sha256(picture).hexdigest() for picture in (HIGH, WIDE)]
    assert [image.hash for image in prompt.images] == hashes
    patches = images.shared(hashes)
    for key, alone in zip(hashes, rendered.images, strict=True):
        assert (patches[key].pixels == alone.pixels).all()
    assert prompt.request(SAMPLING, sample=2) == Request(
        prompt_ids=prompt.token_ids,
        image_hashes=tuple(hashes),
        max_response_tokens=9,
        temperature=0.7,
        top_p=0.9,
        seed=request_seed(5, "training", "p", 2),
    )


def test_no_two_requests_share_their_noise() -> None:
    """Over 64 problems and 8 samples, two runs, and what is sampled beside training."""
    prompts = [Prompt(Problem(f"p{number}", "?", "1"), (1, 2), ()) for number in range(64)]
    runs = [SAMPLING, replace(SAMPLING, seed=6), replace(SAMPLING, purpose="evaluation")]
    seeds = {one.request(run, i).seed for run in runs for one in prompts for i in range(8)}
    assert len(seeds) == 3 * 64 * 8
    assert request_seed(1, 23) != request_seed(12, 3)
    assert min(seeds) >= 0
    assert max(seeds) < 2**63


def test_a_picture_that_cannot_be_used_names_its_problem(processor, images, tmp_path: Path) -> None:
    problem = Problem("geo-7", "?", "1", images=(WIDE, tmp_path / "none.png"))
    with pytest.raises(ValueError, match=r"problem geo-7, image 2: .*none\.png: there is no such"):
        render_prompt(processor, images, problem)


@pytest.mark.parametrize(
    ("token_ids", "runs"),
    [
        ([], []),
        ([1, 2], []),
        ([9], [(0, 1)]),
        ([9, 9, 1, 9], [(0, 2), (3, 1)]),
        ([1, 9, 9, 9, 2, 1, 9, 9], [(1, 3), (6, 2)]),
    ],
)
def test_placeholder_runs(token_ids: list[int], runs: list[tuple[int, int]]) -> None:
    assert placeholder_runs(token_ids, 9) == runs


class Engine:
    """Gives what it was told to."""

    def __init__(self, *answers: Completion) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.requests += requests
        return self.answers


def completion(token_ids: Sequence[int], reason: FinishReason) -> Completion:
    return Completion((Segment(tuple(token_ids), (-1.0,) * len(token_ids), 4),), reason)


def test_responses_come_back_with_their_problems(processor, images: ImageStore) -> None:
    end = processor.tokenizer.special_token_ids["<|im_end|>"]
    ids = processor.tokenizer.text_ids("it is 7")
    stopped = completion([*ids, end], FinishReason.STOP)
    cut = completion(ids, FinishReason.LENGTH)
    prompts = [render_prompt(processor, images, one) for one in (PICTURED, Problem("t", "?", "7"))]
    engine = Engine(stopped, cut, cut, cut)
    groups = collect(engine, processor, prompts, replace(SAMPLING, samples=2))
    assert engine.requests == [one.request(SAMPLING, i) for one in prompts for i in (0, 1)]
    assert [group.problem for group in groups] == [prompt.problem for prompt in prompts]
    assert [len(group.trajectories) for group in groups] == [2, 2]
    first, second = groups[0].trajectories
    assert first.text == second.text == "it is 7"
    assert (first.finish_reason, second.finish_reason) == (FinishReason.STOP, FinishReason.LENGTH)
    assert first.segments == stopped.segments
    assert first.response_ids == (*ids, end)
    assert first.prompt_ids == prompts[0].token_ids
    assert first.image_hashes == tuple(image.hash for image in prompts[0].images)
    assert groups[1].trajectories[0].image_hashes == ()


def test_a_placeholder_in_a_response_is_refused(processor) -> None:
    prompt = Prompt(Problem("odd", "?", "7"), (1, 2), ())
    engine = Engine(completion([5, processor.media_token_id], FinishReason.LENGTH))
    with pytest.raises(ValueError, match="problem odd: a response holds a media placeholder"):
        collect(engine, processor, [prompt], replace(SAMPLING, samples=1))
