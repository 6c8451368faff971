"""The recipe's `rl` section: the objective, lengths, sampling of problems, and steps."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from thinking_rl.recipe.optimizer import Optimizer
from thinking_rl.recipe.section import MANY, Count, CountOrZero, Section, as_tuple


class Loss(Section):
    """Which of the published policy mirror-descent losses is minimised (see docs/method.md)."""

    preset: Literal["k1.5", "k2.5"] | None = None
    """Sets the keys of this section that are not given: k1.5 to Kimi k1.5's equation 3, k2.5 to
    Kimi K2.5's loss by token. None: eq. 3, without the groups that have no signal."""
    form: Literal["sequence", "token"] = "sequence"
    """The square of the regulariser is taken of a response's log-ratio, or of each token's."""
    baseline: Literal["mean", "log_mean_exp"] = "mean"
    """What rewards are compared to: the mean over the group, or tau * log(mean(exp(reward / tau))),
    whose limit for large tau it is."""
    normalisation: Literal["sequences", "tokens", "response_length"] = "sequences"
    """What a step's sum is divided by: the number of its responses; the number of their tokens;
    or each response by its own tokens, and then by the number of responses."""
    without_signal: Literal["leave_out", "keep"] = "leave_out"
    """Groups whose advantages are all 0: left out, or kept for their regulariser. What is kept
    counts in `responses_per_step` and in what is divided by."""
    ratio_band: Annotated[tuple[float, float] | None, BeforeValidator(as_tuple)] = None
    """Smallest and largest ratio of the learner's to the engine's probability of a token; outside,
    its policy gradient is masked. None: no token's is."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        preset = given.get("preset") if isinstance(given, dict) else None
        return {**PRESETS[preset], **given} if preset in PRESETS else given

    @model_validator(mode="after")
    def _band_holds_one(self) -> Loss:
        if self.ratio_band and not 0 <= self.ratio_band[0] < 1 < self.ratio_band[1]:
            raise ValueError(
                f"ratio_band is {list(self.ratio_band)}: expected two ratios around 1, such as "
                "[0.5, 2.0]"
            )
        return self


PRESETS: dict[Any, dict[str, Any]] = {
    "k1.5": {
        "form": "sequence",
        "baseline": "mean",
        "normalisation": "sequences",
        "without_signal": "keep",
        "ratio_band": None,
    },
    "k2.5": {
        "form": "token",
        "baseline": "mean",
        "normalisation": "tokens",
        "without_signal": "keep",
        "ratio_band": [0.5, 2.0],  # ours: the band is not known
    },
}
"""What `rl.loss.preset` sets."""


class Length(Section):
    """What the length of a response does to its reward; by default nothing."""

    reward_weight: float = Field(default=0.0, ge=0)
    """Factor of Kimi k1.5's length reward, which is -0.5 to 0.5; 0: off."""
    start_iteration: CountOrZero = 0
    """The first iteration, counted from 0, with the length reward and with Toggle."""
    toggle_every: CountOrZero = 0
    """Iterations of each phase of Kimi K2.5's Toggle, the constrained one first: in it, where a
    group is accurate enough, right answers longer than the problem's budget earn nothing. 0: no
    phases."""
    toggle_accuracy: float = Field(default=0.5, gt=0, le=1)
    """Share of right answers from which on a group is constrained."""
    toggle_quantile: float = Field(default=0.5, ge=0, le=1)
    """Of the lengths of a problem's right answers, when it first has any: its budget."""
    overlong_tokens: CountOrZero = 0
    """The last tokens before `rollout.max_response_tokens`, over which a penalty rises from 0 to 1;
    0: none. (What a response earns that is cut off is `rewards.truncated`.)"""


class Sampler(Section):
    """Which problems an iteration works on."""

    kind: Literal["uniform", "prioritised", "curriculum"] = "uniform"
    """uniform: any; prioritised: in proportion to the failure rate; curriculum: easy ones first.
    All draw each source by its weight, and shuffle. With `curriculum_iterations`, prioritised has a
    curriculum too."""
    pool_problems: CountOrZero = 0
    """Problems that are drawn from `data.train` once, to sample from. 0: for uniform, problems come
    as the sources give them, without end; for the others, all that files and hubs hold."""
    decay: float = Field(default=0.9, gt=0, le=1)
    """Factor on a problem's earlier successes and failures at each new group, where it is
    prioritised; 1: all count alike."""
    curriculum_iterations: CountOrZero = 0
    """Iterations until all problems are open: by their `pass_rate` where all have one measured,
    else by their level."""

    @model_validator(mode="after")
    def _curriculum_takes_time(self) -> Sampler:
        if (self.kind == "curriculum") > bool(self.curriculum_iterations):
            raise ValueError("kind curriculum needs curriculum_iterations, such as 20")
        if (self.kind == "uniform") and self.curriculum_iterations:
            raise ValueError("curriculum_iterations needs kind curriculum or prioritised")
        return self


Positive = Annotated[float, Field(gt=0)]


def _course(value: Any) -> tuple[float, float]:
    """A number, or [first, last]."""
    ends = value if isinstance(value, list | tuple) else [value, value]
    numbers = [one for one in ends if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) != 2 or len(ends) != 2 or not all(0 < one < math.inf for one in numbers):
        raise ValueError(f"expected a number above 0, or [first, last] of two, not {value!r}")
    return float(numbers[0]), float(numbers[1])


def _as_number(course: tuple[float, float]) -> float | list[float]:
    """As the recipe may write it."""
    return course[0] if course[0] == course[1] else [*course]


class RL(Section):
    """Online policy mirror descent."""

    iterations: Count
    """Rounds of sampling, grading, learning and publication."""
    problems_per_iteration: Count
    """Problems drawn for each iteration."""
    samples_per_problem: int = Field(default=8, ge=2, le=MANY)
    """Responses to each problem; the mean of their rewards is the baseline."""
    responses_per_step: Annotated[int, Field(ge=2, le=MANY)] | None = None
    """Responses of an optimizer step; what is left of an iteration's is skipped and counted. None:
    a quarter of all that an iteration samples."""
    epochs: Count = 1
    """Passes over an iteration's responses; the reference stays the policy that it began with."""
    tau: Annotated[
        tuple[float, float],
        PlainValidator(_course, json_schema_input_type=Positive | tuple[Positive, Positive]),
        PlainSerializer(_as_number),
    ]
    """Strength of the pull towards the iteration's starting policy: a number, or [first, last] of a
    course through the iterations, falling or rising by the same factor at each."""
    loss: Loss = Loss()
    """Which loss; by default Kimi k1.5's."""
    length: Length = Length()
    """Length in the reward; by default not."""
    sampler: Sampler = Sampler()
    """Which problems; by default as they come."""
    optimizer: Optimizer
    """Its learning rate runs its course over the steps of all iterations."""
    max_staleness: CountOrZero = 0
    """Iterations that the engines may be ahead of the learner; 0: they wait while it steps."""
    older_segments: Literal["leave_out", "train"] = "leave_out"
    """Tokens sampled more than `max_staleness` policies ago: left out of the loss, or trained on
    with the sampling policy as their reference."""
    reset_optimizer: bool = True
    """Start each iteration with fresh optimizer state, as Kimi k1.5 does."""
    evaluate_every: CountOrZero = 0
    """Iterations between evaluations within the stage; 0: only before and after it."""
    benchmarks_every: CountOrZero = 0
    """Iterations between runs of `data.benchmarks`; 0: only after the last."""
    checkpoint_every: CountOrZero = 0
    """Iterations between checkpoints that a run can resume from; 0: only at the end."""

    @property
    def responses(self) -> int:
        """Responses that an iteration asks for."""
        return self.problems_per_iteration * self.samples_per_problem

    @property
    def step_responses(self) -> int:
        """Responses of an optimizer step."""
        return self.responses_per_step or max(2, self.responses // 4)

    @property
    def planned_steps(self) -> int:
        """Optimizer steps of an iteration whose responses all have a signal."""
        return self.epochs * (self.responses // self.step_responses)

    def tau_at(self, iteration: int, planned: int) -> float:
        """tau of an iteration, from 0, of a run that was planned with so many; beyond it stays."""
        first, last = self.tau
        return first * (last / first) ** min(1.0, iteration / max(1, planned - 1))

    @model_validator(mode="after")
    def _every_step_has_responses(self) -> RL:
        if self.responses < self.step_responses:
            raise ValueError(
                f"responses_per_step is {self.step_responses}, but an iteration has only "
                f"{self.responses} responses"
            )
        return self
