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
from rollouts.collect import trajectory as make_trajectory
from rollouts.engine import Engine
from rollouts.prompts import Prompt, Sampling, render_prompt
from rollouts.scheduler import Job
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
    assert first.token_ids == again.token_ids != other.token_ids


def test_answers_come_in_the_order_of_requests(
    engine: Engine, reference: Reference, prompts
) -> None:
    """Requests that end at unlike times."""
    local = LocalEngine(engine, reference.images)
    greedy = replace(SAMPLING, samples=1, temperature=0.0)
    alone = {kind: sample(engine, reference, prompts[kind], greedy) for kind in prompts}
    requests = [
        replace(prompts[kind].request(greedy), max_response_tokens=length)
        for kind, length in zip(prompts, (24, 3, 12, 1), strict=True)
    ]
    for kind, answer in zip(prompts, local.generate(requests), strict=True):
        ids = answer.token_ids
        assert ids == alone[kind].trajectories[0].response_ids[: len(ids)]
    assert local.generate([]) == []


def test_a_response_fills_what_room_there_is(engine: Engine, reference: Reference, prompts) -> None:
    length = engine.settings.max_model_tokens - 3
    ids = (prompts["text"].token_ids * 50)[:length]
    request = prompts["text"].request(SAMPLING)
    requests = [replace(request, prompt_ids=ids, seed=seed) for seed in range(8)]
    assert max(len(one.token_ids) for one in engine.generate(requests, {})) == 3


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
    assert local.generate([good])[0].token_ids


def test_what_is_stopped_goes_on_under_other_weights(
    engine: Engine, reference: Reference, prompts
) -> None:
    """Every token is told once, with its log-prob and its policy, whenever it is asked for."""
    sampling = replace(SAMPLING, max_response_tokens=100)
    requests = {str(i): prompts["one image"].request(sampling, i) for i in range(8)}
    patches = reference.images.shared(requests["0"].image_hashes)
    for name, request in requests.items():
        engine.add(name, request, patches)
    jobs = {name: Job(name, request) for name, request in requests.items()}
    told = engine.run(seconds=0.05) + engine.stop()
    assert engine.run() == []
    reference.change(seed=3)
    reference.publish(engine)
    for one in told:
        jobs[one.name].take(one)
    going_on = [job for job in jobs.values() if job.finish_reason is FinishReason.UNFINISHED]
    assert going_on
    for job in going_on:
        engine.add(job.name, job.remaining(), patches)
    for one in engine.run(until=3) + engine.run():
        jobs[one.name].take(one)
    answers = [job.completion() for job in jobs.values()]
    assert all(len(one.token_ids) <= 100 for one in answers)
    assert {one.finish_reason for one in answers} <= {FinishReason.STOP, FinishReason.LENGTH}
    versions = [[s.policy_version for s in one.segments] for one in answers]
    assert [engine.version - 1, engine.version] in versions
    prompt = prompts["one image"]
    responses = tuple(make_trajectory(reference.processor, prompt, one) for one in answers)
    group = Group(prompt.problem, responses)
    scores = reference.scores([group.conversation(i) for i in range(len(answers))])
    learned = [logprobs for logprobs, _ in scores]
    for answer, values in zip(answers, learned, strict=True):
        old = sum(len(s.token_ids) for s in answer.segments if s.policy_version < engine.version)
        given = [value for segment in answer.segments for value in segment.logprobs]
        assert values[old:].tolist() == pytest.approx(given[old:], abs=TOLERANCE)
        if old:  # sampled with the weights of then
            assert (values[:old] - torch.tensor(given[:old])).abs().max() > TOLERANCE


def test_a_loop_is_ended_and_its_neighbours_go_on(
    engine: Engine, reference: Reference, prompts
) -> None:
    with torch.no_grad():  # all tokens are alike, and the greedy one is always the first
        reference.model.language_model.lm_head.weight.zero_()
    reference.publish(engine)
    request = prompts["text"].request(replace(SAMPLING, max_response_tokens=150))
    others = [replace(request, seed=seed) for seed in range(3)]
    local = LocalEngine(engine, reference.images)
    alone = local.generate(others)
    loop, *beside = local.generate([replace(request, temperature=0.0), *others])
    assert loop.finish_reason is FinishReason.REPETITION
    assert loop.token_ids == loop.token_ids[:1] * 64
    assert sum(len(segment.logprobs) for segment in loop.segments) == 64
    assert [one.token_ids for one in beside] == [one.token_ids for one in alone]
    assert max(len(one.token_ids) for one in beside) == 150
