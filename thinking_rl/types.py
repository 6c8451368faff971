"""The records that travel through a run: problems, responses, scores.

Frozen dataclasses built on the standard library alone, so that a reward function of a user's
own needs nothing heavier than this file. Lengths are in tokens unless a field says otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ImageSource = Path | bytes
"""A picture: a file, or its encoded bytes (PNG, JPEG, WebP...). Decoded only when it is used."""


@dataclass(frozen=True)
class Problem:
    """One question with a verifiable answer."""

    id: str
    """Unique within its source; results are matched by it."""
    question: str
    """Text for the user turn. `<imageN>` (counted from 1) marks the place of image N; images
    without a mark stand before the text. A mark without an image is plain text."""
    answer: str
    """The expected answer: a value, an expression, or a choice letter."""
    images: tuple[ImageSource, ...] = ()
    """In the order of their numbers in the question; empty where it is text alone."""
    choices: tuple[str, ...] = ()
    """Texts of the options A, B, C...; empty for a free-form question."""
    source: str = ""
    """Name of the data source, for reports and mixing."""
    subject: str = ""
    """Topic, for reports; empty where the source states none."""
    level: int | None = None
    """Difficulty, 1 (easy) to 5 (hard), where the source states it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the source tells (unit, precision, worked solution...)."""


class Outcome(enum.StrEnum):
    """What grading one response came to. `NOT_GRADED` is never a wrong answer."""

    RIGHT = "right"
    WRONG = "wrong"
    NOT_GRADED = "not_graded"


@dataclass(frozen=True)
class Score:
    """What a grader says of one response."""

    value: float
    """The reward; finite. 0.0 where the response could not be graded."""
    correct: bool | None = None
    """Whether the final answer is right; None where the grader does not judge answers."""
    extracted: str | None = None
    """The answer as read from the response, for people."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """The value of each named part of a composed reward, before weighting."""
    error: str | None = None
    """Why it was not graded (timeout, crash, memory, bad type); None otherwise."""
    seconds: float = 0.0
    """Wall-clock time that grading took; the grading pool fills it in."""
    note: str | None = None
    """Why a graded answer is wrong, where that is not plain (too large, two values, cut off)."""

    @property
    def outcome(self) -> Outcome:
        """Not graded where there is an error; else the verdict; else whether it earned anything."""
        if self.error is not None:
            return Outcome.NOT_GRADED
        is_right = self.value > 0 if self.correct is None else self.correct
        return Outcome.RIGHT if is_right else Outcome.WRONG


@dataclass(frozen=True)
class Segment:
    """A run of response tokens sampled by one policy version."""

    token_ids: tuple[int, ...]
    """What was sampled, in order; a stop token is the last of a finished response."""
    logprobs: tuple[float, ...]
    """The engine's log-probability of each token, in nats, under the distribution of the model
    itself (temperature 1, nothing banned)."""
    policy_version: int
    """Publications of weights to the engine before; 0: those that it started with."""


class FinishReason(enum.StrEnum):
    """Why a response ended."""

    STOP = "stop"
    """At a stop token."""
    LENGTH = "length"
    """At a limit: of the response, of the model, or of its age."""
    REPETITION = "repetition"
    """In a loop, which was ended."""
    ABORT = "abort"
    """By the engine, without being asked."""
    ERROR = "error"
    """By a fault of the engine's, such as a lost cache."""
    UNFINISHED = "unfinished"
    """It goes on."""


@dataclass(frozen=True)
class Trajectory:
    """One response to one problem."""

    problem_id: str
    """Of the problem that it answers."""
    prompt_ids: tuple[int, ...]
    """Token ids of the rendered prompt, each image expanded to its `<|media_pad|>` run."""
    image_hashes: tuple[str, ...]
    """Keys of the pictures in the image store, in the order of their placeholders."""
    segments: tuple[Segment, ...]
    """What was sampled, in order; a new segment where the policy changed."""
    text: str
    """The response decoded, without the stop token."""
    finish_reason: FinishReason
    """Why it ended."""

    @property
    def response_ids(self) -> tuple[int, ...]:
        """All sampled tokens, in order."""
        return tuple(token for segment in self.segments for token in segment.token_ids)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The engine's log-probability of each sampled token."""
        return tuple(value for segment in self.segments for value in segment.logprobs)

    @property
    def length(self) -> int:
        """Response length in tokens."""
        return sum(len(segment.token_ids) for segment in self.segments)


@dataclass(frozen=True)
class Conversation:
    """One prompt with one response: all that a learner needs of it."""

    token_ids: tuple[int, ...]
    """Prompt, then response; each image expanded to its `<|media_pad|>` run."""
    loss_mask: tuple[bool, ...]
    """For each token whether it is the policy's own and enters the loss; never the first."""
    image_hashes: tuple[str, ...] = ()
    """Keys of the images in the image store, in the order of their placeholders."""
    advantage: float = 0.0
    """Reward above the group's baseline, in units of the reward."""
    logprobs: tuple[float, ...] = ()
    """Of each token in the loss, in nats, as the engine gave them; empty where none sampled."""
    policy_versions: tuple[int, ...] = ()
    """Which policy sampled each token in the loss; empty where none did."""
    references: tuple[float, ...] = ()
    """Of each token in the loss the log-probability that its reference gave it, in nats; NaN where
    the reference is the policy that the iteration begins with. Empty: NaN for all."""
    problem_id: str = ""
    """Of the problem; empty for a conversation that was not sampled."""


@dataclass(frozen=True)
class Group:
    """The k responses to one problem; scores and advantages are filled in as it travels."""

    problem: Problem
    """What was asked."""
    trajectories: tuple[Trajectory, ...]
    """The k responses."""
    scores: tuple[Score, ...] = ()
    """What the grader said of each response; empty before."""
    advantages: tuple[float, ...] = ()
    """Of each response, in units of the reward; empty before they are set."""
    shaping: tuple[Mapping[str, float], ...] = ()
    """What is added to the score of each response, by name (see `algorithm.length`), in units of
    the reward; empty: nothing."""

    def reward(self, index: int) -> float:
        """Of response `index`: the score's value and all that is added to it."""
        return self.scores[index].value + sum(self.shaping[index].values() if self.shaping else ())

    @property
    def has_signal(self) -> bool:
        """Whether any response of the group moves the policy."""
        return any(advantage != 0.0 for advantage in self.advantages)

    def conversation(self, index: int) -> Conversation:
        """Response `index` as the learner takes it."""
        response = self.trajectories[index]
        before, after = len(response.prompt_ids), response.length
        return Conversation(
            token_ids=response.prompt_ids + response.response_ids,
            loss_mask=(False,) * before + (True,) * after,
            image_hashes=response.image_hashes,
            advantage=self.advantages[index] if self.advantages else 0.0,
            logprobs=response.logprobs,
            policy_versions=tuple(s.policy_version for s in response.segments for _ in s.token_ids),
            problem_id=self.problem.id,
        )
