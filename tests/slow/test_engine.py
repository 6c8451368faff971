"""The engine: agreement with our model, weights taken anew, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from benchmarks.agreement import (
    SAMPLING,
    LocalEngine,
    Reference,
    agreement,
    problems,
    render_problems,
)
from rollouts.collect import collect
from rollouts.engine import Engine
from rollouts.prompts import Prompt, Sampling, render_prompt
from thinking_rl.types import FinishReason, Group, Problem

TOLERANCE = 5e-4


@pytest.fixture
def prompts(reference: Reference) -> dict[str, Prompt]:
    return render_problems(reference.processor, reference.images)


def sample(
    engine: Engine, reference: Reference, prompt: Prompt, sampling: Sampling = SAMPLING
) -> Group:
    """The engine's responses to one prompt."""
    local = LocalEngine(engine, reference.images)
    (group,) = collect(local, reference.processor, [prompt], sampling)
    return group


@pytest.mark.parametrize("kind", problems())
def test_log_probs_agree(engine: Engine, reference: Reference, prompts, kind: str) -> None:
    found = agreement(engine, reference, {kind: prompts[kind]})[kind]
    assert found.tokens > 50
    assert found.largest < TOLERANCE


def test_the_token_limit_shrinks(reference: Reference, prompts) -> None:
    rows, columns = prompts["shrunk image"].images[0].grid_hw
    assert rows * columns < 20 * 15  # the picture's own size in patches
    assert len(prompts["three images"].images) == 3


def test_log_probs_agree_after_publications(engine: Engine, reference: Reference, prompts) -> None:
    for number in range(1, 4):
        reference.change(seed=number)
        reference.publish(engine)
        found = agreement(engine, reference, prompts)
        assert {kind: one.largest for kind, one in found.items() if one.largest >= TOLERANCE} == {}
    for _ in range(2):
        reference.publish(engine)  # the same weights
        found = agreement(engine, reference, prompts)
        assert {kind: one.largest for kind, one in found.items() if one.largest >= TOLERANCE} == {}


def test_old_weights_disagree(engine: Engine, reference: Reference, prompts) -> None:
    """A publication that changes nothing in the engine would be found out."""
    reference.change(seed=1)
    found = agreement(engine, reference, prompts)
    assert min(one.largest for one in found.values()) > 100 * TOLERANCE


def test_segments_carry_the_version(engine: Engine, reference: Reference, prompts) -> None:
    reference.publish(engine)
    group = sample(engine, reference, prompts["text"])
    versions = {segment.policy_version for t in group.trajectories for segment in t.segments}
    assert versions == {engine.version}


def test_media_placeholders_are_never_sampled(
    engine: Engine, reference: Reference, prompts
) -> None:
    media = reference.processor.media_token_id
    with torch.no_grad():  # a large first component of every hidden state, read by one logit
        embeddings = reference.model.language_model.model.embed_tokens.weight
        head = reference.model.language_model.lm_head.weight
        embeddings[:, 0] = 50.0
        head[:, 0] *= 0.1
        head[media] = 0.0
        head[media, 0] = 2.0
    reference.publish(engine)
    for kind in ("text", "one image"):
        group = sample(engine, reference, prompts[kind])
        sampled = [token for t in group.trajectories for token in t.response_ids]
        logprobs = [value for t in group.trajectories for value in t.logprobs]
        assert media not in sampled
        # The model's own: the placeholder keeps nearly all of the probability.
        assert max(logprobs) < -5
    found = agreement(engine, reference, prompts)
    assert max(one.largest for one in found.values()) < TOLERANCE


def test_requests_end_at_a_stop_token_or_the_limit(
    engine: Engine, reference: Reference, prompts
) -> None:
    stops = set(engine.settings.stop_token_ids)
    sampling = replace(SAMPLING, samples=32, max_response_tokens=200)
    group = sample(engine, reference, prompts["text"], sampling)
    for trajectory in group.trajectories:
        stopped = trajectory.finish_reason is FinishReason.STOP
        assert stopped == (trajectory.response_ids[-1] in stops)
        assert stopped or trajectory.length == 200
        assert not stops & set(trajectory.response_ids[:-1])
        assert "<|im_end|>" not in trajectory.text
    reasons = {trajectory.finish_reason for trajectory in group.trajectories}
    assert FinishReason.STOP in reasons


def test_a_seed_fixes_a_request(engine: Engine, reference: Reference, prompts) -> None:
    local = LocalEngine(engine, reference.images)
    request = replace(prompts["one image"].request(SAMPLING), seed=7)
    first, again = local.generate([request])[0], local.generate([request])[0]
    other = local.generate([replace(request, seed=8)])[0]
    ids = [[one.segment.token_ids for one in answers] for answers in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_answers_come_in_the_order_of_requests(
    engine: Engine, reference: Reference, prompts
) -> None:
    """Requests of unlike numbers of samples, which end at unlike times."""
    local = LocalEngine(engine, reference.images)
    greedy = replace(SAMPLING, samples=1, temperature=0.0)
    alone = {kind: sample(engine, reference, prompts[kind], greedy) for kind in prompts}
    requests = [
        replace(prompts[kind].request(greedy), max_response_tokens=length)
        for kind, length in zip(prompts, (24, 3, 12, 1), strict=True)
    ]
    requests.append(prompts["text"].request(replace(SAMPLING, samples=5)))
    answers = local.generate(requests)
    assert [len(one) for one in answers] == [1, 1, 1, 1, 5]
    for kind, (answer,) in zip(prompts, answers, strict=False):
        ids = answer.segment.token_ids
        assert ids == alone[kind].trajectories[0].response_ids[: len(ids)]
    assert local.generate([]) == []


def test_a_response_fills_what_room_there_is(engine: Engine, reference: Reference, prompts) -> None:
    length = engine.settings.max_model_tokens - 3
    ids = (prompts["text"].token_ids * 50)[:length]
    request = prompts["text"].request(SAMPLING)
    (answers,) = engine.generate([replace(request, prompt_ids=ids)], {})
    assert max(len(one.segment.token_ids) for one in answers) == 3


def test_a_prompt_without_room_is_refused(engine: Engine, reference: Reference) -> None:
    problem = Problem("long", "word " * 400, "1")
    prompt = render_prompt(reference.processor, reference.images, problem)
    with pytest.raises(ValueError, match=r"a prompt has \d+ tokens and rollout.max_model_tokens"):
        sample(engine, reference, prompt)


def test_placeholders_must_match_the_pictures(
    engine: Engine, reference: Reference, prompts
) -> None:
    """Run by run: a right sum is not enough."""
    one, other, three = prompts["one image"], prompts["shrunk image"], prompts["three images"]
    wrong, needed = one.images[0].num_tokens, other.images[0].num_tokens
    turned = three.images[1:] + three.images[:1]
    runs, others = ([image.num_tokens for image in images] for images in (three.images, turned))
    assert wrong != needed
    assert runs != others
    mistakes = [
        (replace(one, images=other.images), [wrong], 1, [needed]),
        (replace(one, images=()), [wrong], 0, []),
        (replace(one, images=one.images * 2), [wrong], 2, [wrong] * 2),
        (replace(prompts["text"], images=one.images), [], 1, [wrong]),
        (replace(three, images=turned), runs, 3, others),
    ]
    for prompt, found, count, expected in mistakes:
        message = (
            f"a prompt has runs of {found} image placeholders, but its {count} image(s) need "
            f"{expected}; render prompt and images together"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            sample(engine, reference, prompt)


def test_the_engine_goes_on_after_a_bad_request(
    engine: Engine, reference: Reference, prompts
) -> None:
    local = LocalEngine(engine, reference.images)
    good = prompts["text"].request(SAMPLING)
    bad = replace(prompts["one image"].request(SAMPLING), image_hashes=())
    with pytest.raises(ValueError, match=r"runs of .* image placeholders, but its 0 image"):
        local.generate([good, bad])
    (answers,) = local.generate([good])
    assert len(answers) == SAMPLING.samples
