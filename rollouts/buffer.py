"""Responses that are not finished, and finished ones whose group is not: all that is left of a
phase. Nothing of them is kept in an engine."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rollouts.engine import Completion, Request
from rollouts.prompts import Prompt, Sampling, request_seed
from thinking_rl.types import FinishReason, Problem, Segment


@dataclass
class OpenResponse:
    """One response of a group that is not whole yet."""

    segments: list[Segment] = field(default_factory=list)
    """Sampled so far."""
    finish_reason: FinishReason = FinishReason.UNFINISHED
    """Why it ended, or that it goes on."""

    @property
    def length(self) -> int:
        """Tokens so far."""
        return sum(len(segment.token_ids) for segment in self.segments)

    def take(self, answer: Completion, limit: int, is_last: bool) -> None:
        """What a phase sampled for it.

        Args:
            limit: tokens at which it is cut off; below, an end at a limit is that of the phase.
            is_last: no other phase goes on with it: it is cut off.
        """
        self.segments += answer.segments
        at_phase_limit = answer.finish_reason is FinishReason.LENGTH and self.length < limit
        if is_last or not at_phase_limit:
            self.finish_reason = answer.finish_reason


@dataclass
class OpenGroup:
    """A problem whose responses are being sampled."""

    number: int
    """Counts the problems of the run."""
    begun: int
    """Iteration that it was drawn for."""
    prompt: Prompt
    """What is asked."""
    responses: list[OpenResponse]
    """The k responses."""

    @property
    def is_whole(self) -> bool:
        """Whether every response has ended."""
        return all(one.finish_reason is not FinishReason.UNFINISHED for one in self.responses)

    def name(self, sample: int) -> str:
        """Of the request for response `sample`."""
        return f"group {self.number}, response {sample}"

    def request(self, sample: int, sampling: Sampling, phase_tokens: int) -> Request:
        """To go on with response `sample`. Its noise is fixed by the run, the group, the response
        and where the new segment begins."""
        response = self.responses[sample]
        key = ("training", self.number, self.prompt.problem.id, sample, response.length)
        left = sampling.max_response_tokens - response.length
        return replace(
            self.prompt.request(sampling),
            sampled_ids=tuple(t for segment in response.segments for t in segment.token_ids),
            max_response_tokens=min(left, phase_tokens),
            seed=request_seed(sampling.seed, *key),
        )


class Buffer:
    """The groups that are not whole, in the order in which they were drawn."""

    def __init__(self, render: Callable[[Problem], Prompt]) -> None:
        """render: a problem's prompt, its pictures in the image store."""
        self.groups: list[OpenGroup] = []
        """Not whole yet."""
        self._render = render
        self._count = 0

    def add(self, problem: Problem, samples: int, iteration: int) -> None:
        """A problem to answer `samples` times."""
        responses = [OpenResponse() for _ in range(samples)]
        self.groups.append(OpenGroup(self._count, iteration, self._render(problem), responses))
        self._count += 1

    def take_whole(self, begun: int) -> list[OpenGroup]:
        """The whole groups that were drawn for iteration `begun` or before."""
        whole = [group for group in self.groups if group.is_whole and group.begun <= begun]
        self.groups = [group for group in self.groups if group not in whole]
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Problems, tokens, log-probs (exact), versions; survives JSON."""
        return {"count": self._count, "groups": [_pack_group(group) for group in self.groups]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._count = state["count"]
        self.groups = [self._unpack_group(packed) for packed in state["groups"]]

    def _unpack_group(self, packed: Mapping[str, Any]) -> OpenGroup:
        return OpenGroup(
            packed["number"],
            packed["begun"],
            self._render(_unpack_problem(packed["problem"])),
            [
                OpenResponse(
                    [_unpack_segment(segment) for segment in one["segments"]],
                    FinishReason(one["finish"]),
                )
                for one in packed["responses"]
            ],
        )


def _pack_group(group: OpenGroup) -> dict[str, Any]:
    return {
        "number": group.number,
        "begun": group.begun,
        "problem": _pack_problem(group.prompt.problem),
        "responses": [
            {
                "finish": one.finish_reason.value,
                "segments": [_pack_segment(segment) for segment in one.segments],
            }
            for one in group.responses
        ],
    }


def _pack_segment(segment: Segment) -> dict[str, Any]:
    return {
        "version": segment.policy_version,
        "ids": _text(array("i", segment.token_ids).tobytes()),
        "logprobs": _text(array("d", segment.logprobs).tobytes()),
    }


def _unpack_segment(packed: Mapping[str, Any]) -> Segment:
    ids, logprobs = array("i"), array("d")
    ids.frombytes(base64.b64decode(packed["ids"]))
    logprobs.frombytes(base64.b64decode(packed["logprobs"]))
    return Segment(tuple(ids), tuple(logprobs), packed["version"])


def _pack_problem(problem: Problem) -> dict[str, Any]:
    images = [
        {"file": str(one)} if isinstance(one, Path) else {"bytes": _text(one)}
        for one in problem.images
    ]
    return asdict(problem) | {"images": images, "metadata": dict(problem.metadata)}


def _unpack_problem(packed: Mapping[str, Any]) -> Problem:
    images = [
        Path(one["file"]) if "file" in one else base64.b64decode(one["bytes"])
        for one in packed["images"]
    ]
    choices = tuple(packed["choices"])
    return Problem(**{**packed, "images": tuple(images), "choices": choices})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
