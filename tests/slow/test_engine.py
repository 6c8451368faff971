"""The engine: agreement with our model, weights taken anew, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.agreement import SAMPLING, Reference, agreement, problems, render_problems
from rollouts.collect import Prompt, collect, render_prompt
from rollouts.engine import Engine
from thinking_rl.types import FinishReason, Problem

TOLERANCE = 5e-4


@pytest.fixture
def prompts(reference: Reference) -> dict[str, Prompt]:
    return render_problems(reference.processor)


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
    (group,) = collect(engine, reference.processor, [prompts["text"]], SAMPLING)  # pyright: ignore[reportArgumentType]
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
        (group,) = collect(engine, reference.processor, [prompts[kind]], SAMPLING)  # pyright: ignore[reportArgumentType]
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
    sampling = replace(SAMPLING, samples=32, max_tokens=200)
    (group,) = collect(engine, reference.processor, [prompts["text"]], sampling)  # pyright: ignore[reportArgumentType]
    for trajectory in group.trajectories:
        stopped = trajectory.finish_reason is FinishReason.STOP
        assert stopped == (trajectory.response_ids[-1] in stops)
        assert stopped or trajectory.length == 200
        assert not stops & set(trajectory.response_ids[:-1])
        assert "<|im_end|>" not in trajectory.text
    reasons = {trajectory.finish_reason for trajectory in group.trajectories}
    assert FinishReason.STOP in reasons


def test_a_seed_fixes_a_request(engine: Engine, reference: Reference, prompts) -> None:
    request = replace(
        prompts["one image"].request(SAMPLING, reference.processor.media_token_id), seed=7
    )
    first, again = engine.generate([request])[0], engine.generate([request])[0]
    other = engine.generate([replace(request, seed=8)])[0]
    ids = [[one.segment.token_ids for one in answers] for answers in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_a_response_fills_what_room_there_is(engine: Engine, reference: Reference, prompts) -> None:
    length = engine.settings.max_model_tokens - 3
    ids = (prompts["text"].token_ids * 50)[:length]
    request = prompts["text"].request(SAMPLING, reference.processor.media_token_id)
    (answers,) = engine.generate([replace(request, prompt_ids=ids, collapsed_ids=ids)])
    assert max(len(one.segment.token_ids) for one in answers) == 3


def test_a_prompt_without_room_is_refused(engine: Engine, reference: Reference) -> None:
    problem = Problem("long", "word " * 400, "1")
    prompt = render_prompt(reference.processor, problem)
    with pytest.raises(ValueError, match=r"a prompt has \d+ tokens and rollout.max_model_tokens"):
        collect(engine, reference.processor, [prompt], SAMPLING)  # pyright: ignore[reportArgumentType]


def test_placeholders_must_match_the_pictures(
    engine: Engine, reference: Reference, prompts
) -> None:
    prompt, other = prompts["one image"], prompts["shrunk image"]
    needed, wrong = other.images[0].num_tokens, prompt.images[0].num_tokens
    mixed = replace(prompt, images=other.images, pictures=other.pictures)
    message = f"has {wrong} image placeholders .* 1 images need {needed}"
    with pytest.raises(ValueError, match=message):
        collect(engine, reference.processor, [mixed], SAMPLING)  # pyright: ignore[reportArgumentType]
    request = mixed.request(SAMPLING, reference.processor.media_token_id)
    read = len(prompt.token_ids) - wrong + needed
    message = f"reads a prompt of {read} tokens where the learner reads {len(prompt.token_ids)}"
    with pytest.raises(ValueError, match=message):
        engine.generate([request])


def test_the_engine_goes_on_after_a_bad_request(
    engine: Engine, reference: Reference, prompts
) -> None:
    media = reference.processor.media_token_id
    good = prompts["text"].request(SAMPLING, media)
    bad = replace(prompts["one image"].request(SAMPLING, media), images=())
    with pytest.raises(ValueError, match=r"placeholder|multi-modal|multimodal|prompt of"):
        engine.generate([good, bad])
    (answers,) = engine.generate([good])
    assert len(answers) == SAMPLING.samples
