"""The recipe: every setting of a run, typed. Unknown keys are errors.

Nothing here imports torch, ray or vllm, so that checking a recipe takes a fraction of a second.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from thinking_rl.names import did_you_mean
from thinking_rl.recipe.optimizer import Optimizer
from thinking_rl.recipe.rl import RL
from thinking_rl.recipe.section import (
    HUGE_GIB,
    LONG,
    MANY,
    Count,
    CountOrZero,
    Gib,
    Seconds,
    Section,
    Tokens,
)

FORMATS = ("procedural", "mathvision", "gsm8k", "geometry3k", "mmmu", "mathvista", "plain")
BENCHMARKS = ("mmmu", "mmmu_pro", "mmmu_pro_vision", "mathvision", "mathvista", "gsm8k", "math500")
STAGES = SFT_STAGE, RL_STAGE = ("sft", "rl")
"""The stages of a run, in their order; each is also the name of its section."""
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
FAMILIES = ("counting", "arithmetic", "spatial", "chart", "text")


TOLERANCES = {"float32": 5e-4, "bfloat16": 0.05}
"""In nats, by the engines' dtype: of the largest difference in float32, of the mean in bfloat16."""


class Model(Section):
    """The checkpoint a run starts from."""

    path: str
    """A checkpoint folder, a hub id, or `tiny`: a small random model made for the run."""
    dtype: Literal["float32", "bfloat16", "auto"] = "bfloat16"
    """Of the forward pass and of the engine; auto: float32 on a machine without a GPU, where it
    costs no time, else bfloat16. Master weights and optimizer are float32."""
    freeze: list[Literal["vision_tower", "projector", "decoder", "router"]] = Field(default=[])
    """Parts that are not trained, `decoder` with its routers; empty: all are trained."""
    image_token_limit: int | None = Field(default=None, ge=4, le=MANY)
    """Most patches an image may have (the processor's in_token_limit); None: the checkpoint's."""

    @field_validator("freeze")
    @classmethod
    def _something_learns(cls, freeze: list[str]) -> list[str]:
        if {"vision_tower", "projector", "decoder", "router"} <= set(freeze):
            raise ValueError("all four parts are frozen, so nothing would learn; leave one out")
        return freeze


OF_FILES = ("path", "subset", "split", "image_root", "columns", "limit")
OF_PROGRAMS = ("families", "levels", "direct")
"""Keys of a source that only files, or only procedural problems, use."""


class Source(Section):
    """Where problems come from. Several sources are mixed in proportion to their weights."""

    format: Literal[FORMATS]  # pyright: ignore[reportInvalidTypeForm]
    """What the columns of a row mean; `procedural` makes its problems and reads nothing."""
    path: str | None = None
    """A jsonl or parquet file, a folder of them, or a hub id; not used by `procedural`."""
    subset: str | None = None
    """Configuration name of a hub data set; None: its default."""
    split: str = "train"
    """Of a hub data set, or of a folder whose files are named after splits."""
    image_root: str | None = None
    """Folder that image paths are relative to and must stay under; by default the file's."""
    columns: dict[str, str] = Field(default={})
    """Problem field -> column (question, answer, images, choices, id, subject, level,
    response); overrides the format's."""
    weight: float = Field(default=1.0, gt=0)
    """Share of this source in the mix, relative to the weights of the others."""
    limit: Count | None = None
    """Use only so many rows, the first; None: all."""
    families: list[Literal[FAMILIES]] = Field(default=[])  # pyright: ignore[reportInvalidTypeForm]
    """Procedural families, drawn evenly; empty: all."""
    levels: list[Annotated[int, Field(ge=1, le=5)]] = Field(default=[1, 2, 3, 4, 5], min_length=1)
    """Procedural difficulty levels, drawn evenly; one that is listed twice, twice as often."""
    direct: float = Field(default=0.0, ge=0, le=1)
    """Share of procedural responses, for the warm-up, that give the answer at once; the others
    work step by step."""

    @model_validator(mode="after")
    def _has_a_path(self) -> Source:
        if self.format != "procedural" and not self.path:
            raise ValueError(f"format {self.format} needs a `path`")
        return self

    @model_validator(mode="after")
    def _uses_all_it_is_given(self) -> Source:
        unused = OF_FILES if self.format == "procedural" else OF_PROGRAMS
        fields = type(self).model_fields
        given = [name for name in unused if getattr(self, name) != fields[name].default]
        if given:
            raise ValueError(f"format {self.format} does not use {', '.join(given)}; take it out")
        return self


class BenchmarkRun(Section):
    """A benchmark that is run along RL (`rl.benchmarks_every`), scored by its official rules and by
    the strict grader."""

    name: str
    """One of `BENCHMARKS` above, such as mathvision."""
    path: str | None = None
    """A file, a folder or a hub id; None: the official data set on the hub."""
    split: str | None = None
    """None: the one that scores are reported on."""
    limit: Count | None = None
    """Use only so many problems, the first; None: all."""
    samples: Count = 1
    """Responses per problem; pass@1 is their mean."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in BENCHMARKS:
            hint = did_you_mean(name, BENCHMARKS)
            raise ValueError(f"no benchmark {name!r}{hint}; known: {', '.join(BENCHMARKS)}")
        return name


class Data(Section):
    """Problems for RL and for the evaluation along the way."""

    train: list[Source] = Field(min_length=1)
    """Problems that RL trains on; not read by a run without that stage."""
    eval: list[Source] = Field(min_length=1)
    """Held-out problems: asked at the start, after each stage and along RL."""
    eval_problems: Count = 200
    """Problems of one evaluation, shared out by weight; fewer where the sources have not so many
    different ones."""
    eval_samples: Count = 8
    """Responses per held-out problem at `eval_temperature`, beside a greedy one."""
    eval_temperature: float = Field(default=1.0, gt=0, le=10)
    """Sampling temperature of evaluations, and of benchmarks."""
    eval_caps: list[Tokens] = Field(default=[])
    """Lengths in tokens for which the accuracy is reported that counts longer responses as wrong,
    from the responses at `eval_temperature`."""
    eval_step_mark: str = ""
    """A response thinks step by step where this text stands in its thinking; empty: where it thinks
    at all."""
    instruction: str = ""
    """Appended to every question, on a line of its own, but not to those of benchmarks; empty:
    nothing is."""
    image_store_gib: Gib = 4.0
    """Memory for pictures that are cut for the model. Beyond it the least recently used are
    decoded again when they come back."""
    benchmarks: list[BenchmarkRun] = Field(default=[])
    """Run in the RL stage, at the temperature `eval_temperature`; empty: none."""


class SFT(Section):
    """The long-CoT warm-up."""

    data: list[Source] = Field(min_length=1)
    """Each problem needs a response: a `response` column, or a procedural family's own."""
    steps: Count
    """Optimizer steps of the stage."""
    batch_size: Count = 64
    """Conversations per optimizer step, over all workers."""
    micro_batch_size: Count | None = None
    """Conversations packed into one forward pass of a worker; None: all of the worker's."""
    max_conversation_tokens: int = Field(default=32768, ge=64, le=LONG)
    """Longest conversation, prompt and response, in tokens; longer ones are dropped and counted."""
    optimizer: Optimizer
    """AdamW over this stage's steps."""
    checkpoint_every: CountOrZero = 0
    """Steps between two checkpoints to go on from inside the stage; 0: none. The newest stays."""

    @model_validator(mode="after")
    def _adamw_alone(self) -> SFT:
        if self.optimizer.kind != "adamw":
            raise ValueError("optimizer.kind is muon: the warm-up has adamw only; RL has both")
        return self

    def conversations_per_pass(self, workers: int) -> int:
        """Conversations in one forward pass of one worker."""
        return self.micro_batch_size or max(1, self.batch_size // workers)

    def tokens_per_pass(self, workers: int) -> int:
        """Most tokens of one forward pass of one worker."""
        return self.conversations_per_pass(workers) * self.max_conversation_tokens


class Rollout(Section):
    """vLLM workers."""

    engines: Count = 1
    """vLLM engines; each holds all weights and gets its share of the prompts."""
    tensor_parallel: Count = 1
    """GPUs that each engine's weights are split over; 1 where `placement` is shared."""
    placement: Literal["shared", "separate"] = "shared"
    """shared: engines sleep while the learner steps; separate: they have devices of their own."""
    dealing: Literal["fixed", "free"] | None = None
    """fixed: requests go to engines by their number, so a run that is done again, or resumed,
    samples the same responses; free: to whichever engine has room. None: fixed with one engine."""
    phase_tokens: Count | None = None
    """Most tokens of one response in one iteration; what is not finished goes on in the next.
    None: no limit."""
    max_age: CountOrZero = 4
    """Iterations that a response may go on after the one that it began in; then it is cut off and
    graded as it is."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Sampling temperature of training. Other than 1, the policy that RL trains is the model with
    its logits divided by it: the learner divides them too."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that tokens are drawn from, the likeliest first; RL needs 1: all."""
    max_response_tokens: Tokens
    """Longest response, in training, evaluations and benchmarks; a longer one is cut."""
    max_model_tokens: int = Field(ge=64, le=LONG)
    """Prompt and response together."""
    max_sequences: Count = 64
    """Sequences an engine decodes at once."""
    max_images: Count = 8
    """Most images in one prompt."""
    gpu_memory_share: float = Field(default=0.85, gt=0, lt=1)
    """Share of each GPU's memory that an engine takes, weights and key-value cache together."""
    kv_cache_gib: int = Field(default=1, ge=1, le=HUGE_GIB)
    """Key-value cache of an engine on a machine without a GPU."""
    start_timeout_s: Seconds = 600
    """Longest wait for an engine to start, in seconds."""
    silence_s: Seconds | None = None
    """An engine that does not answer for so long is ended and started again, in seconds. None: 20
    on GPUs, 300 on CPUs, whose steps may take long."""
    timeout_s: Seconds = 3600
    """Longest wait for the next response of all that are sampled, in seconds."""
    agreement_responses: Count = 8
    """Responses that engines and learner are compared on after each publication; each engine gives
    one at least."""
    agreement_tolerance: float | None = Field(default=None, gt=0)
    """Largest difference of log-probs between engine and learner, in nats: of any token in float32,
    of their mean in bfloat16. Beyond it the run stops. None: 0.0005 in float32, 0.05 in
    bfloat16."""

    @model_validator(mode="after")
    def _a_prompt_fits(self) -> Rollout:
        if self.max_response_tokens >= self.max_model_tokens:
            raise ValueError(
                f"max_response_tokens is {self.max_response_tokens}: it must be below "
                f"max_model_tokens ({self.max_model_tokens}), which counts the prompt too"
            )
        return self


class Learner(Section):
    """FSDP2 training processes."""

    workers: Count = 1
    """Training processes, each on a GPU of its own where there are any; they share the model."""
    tokens_per_microbatch: int = Field(ge=64, le=LONG)
    """Packed tokens of one forward and backward, per worker."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads per worker; None: its share of the cores."""
    timeout_s: Seconds = 3600
    """Longest wait for one call to the workers, in seconds: such as an optimizer step."""


class RewardPart(Section):
    """One named part of the reward."""

    grader: str
    """Registry key, `package.module:function` or `path/to/file.py:function`."""
    weight: float = 1.0
    """Factor of its value in the sum; below 0 it is a penalty."""

    @field_validator("weight")
    @classmethod
    def _counts(cls, weight: float) -> float:
        if weight == 0:
            raise ValueError("a part of weight 0 counts for nothing; leave the part out")
        return weight


class Rewards(Section):
    """How a response is scored: the weighted sum of its parts."""

    parts: list[RewardPart] = Field(default=[RewardPart(grader="math_answer")], min_length=1)
    """Graders with their weights; each grades every response."""
    timeout_s: Seconds = 5.0
    """Wall-clock limit for one grader on one response, in seconds."""
    memory_gib: Gib = 2.0
    """What a grading process may take beyond the loaded graders (Linux)."""
    workers: int = Field(default=2, ge=1, le=1024)
    """Grading processes."""
    repetition_penalty: float = Field(default=0.0, ge=0)
    """Taken off the reward of a response that was ended because it went round in a loop."""
    max_failure_share: float = Field(default=0.2, ge=0, le=1)
    """A run stops when more than this share of an iteration's responses could not be graded."""
    truncated: Literal["wrong", "masked", "graded"] = "wrong"
    """What a response cut off before its end (at its token limit, or for repetition) earns: wrong
    is 0 or its penalties, masked leaves it out of training (in evaluations it is wrong), graded
    takes it as it stands."""
    thinking: Literal["required", "closed_if_opened", "ignored"] = "closed_if_opened"
    """Which answers count. required: only those after a closed thinking part; closed_if_opened:
    also those of responses without any; ignored: also those in thinking that is never closed."""

    @field_validator("parts")
    @classmethod
    def _differ(cls, parts: list[RewardPart]) -> list[RewardPart]:
        graders = [part.grader for part in parts]
        twice = next((name for name in graders if graders.count(name) > 1), None)
        if twice:
            raise ValueError(f"the grader {twice!r} is listed twice; give it once, with its weight")
        return parts


class Recipe(Section):
    """One run, from checkpoint to thinking checkpoint."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the order of the data, the held-out problems, sampling, and the weights of `tiny`."""
    run_dir: str = ""
    """Where everything is written; by default `runs/<recipe name>`."""
    overwrite: bool = False
    """Start afresh in a run_dir that already holds a run, and drop what it left."""
    resume: bool = False
    """Go on from the last checkpoint in run_dir; from the start where there is none."""
    data_dir: str = ""
    """Folder that the sources' relative paths are under; empty: the current folder."""
    responses_gib: float = Field(default=1.0, ge=0, le=HUGE_GIB)
    """Largest `responses.jsonl`, which keeps every sampled response, with `images/`, which keeps
    the pictures that they show; 0 keeps none."""
    trackers: list[Literal[TRACKERS]] = Field(default=["tensorboard"])  # pyright: ignore[reportInvalidTypeForm]
    """Where the numbers go beside `metrics.jsonl`; all but tensorboard also take the recipe, and a
    few responses of each evaluation. They work offline, and are installed by who wants them."""
    stages: list[Literal[STAGES]] = Field(default=[*STAGES], min_length=1)  # pyright: ignore[reportInvalidTypeForm]
    """What the run does, in this order."""
    ray_address: str | None = None
    """Address of a running Ray cluster; None: Ray is started for the run."""
    model: Model
    """The checkpoint that the run starts from."""
    data: Data
    """What is trained on in RL, and what is evaluated on."""
    sft: SFT | None = None
    """The warm-up; None will do where `stages` leaves it out."""
    rl: RL | None = None
    """Reinforcement learning; None will do where `stages` leaves it out."""
    rollout: Rollout
    """How responses are sampled."""
    learner: Learner
    """How the model is trained."""
    rewards: Rewards = Rewards()
    """How responses are graded; by default by `math_answer` alone."""

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: list[str]) -> list[str]:
        expected = [stage for stage in STAGES if stage in stages]
        if stages != expected:
            raise ValueError(
                f"each stage once, in this order: [{', '.join(STAGES)}]; give "
                f"[{', '.join(expected)}] instead of [{', '.join(stages)}]"
            )
        return stages

    @property
    def agreement_tolerance(self) -> float:
        """Largest difference of log-probs between engine and learner, in nats."""
        return self.rollout.agreement_tolerance or TOLERANCES[self.model.dtype]

    @property
    def dealing(self) -> Literal["fixed", "free"]:
        """How requests are dealt to engines."""
        return self.rollout.dealing or ("fixed" if self.rollout.engines == 1 else "free")

    @property
    def active_sft(self) -> SFT | None:
        """The warm-up's section, where the run has this stage."""
        return self.sft if SFT_STAGE in self.stages else None

    @property
    def active_rl(self) -> RL | None:
        """The RL section, where the run has this stage."""
        return self.rl if RL_STAGE in self.stages else None

    @model_validator(mode="after")
    def _batches_divide_evenly(self) -> Recipe:
        if sft := self.active_sft:
            workers, size = self.learner.workers, sft.micro_batch_size
            at_once = workers * (size or 1)
            if sft.batch_size % at_once:
                whose = "learner.workers times sft.micro_batch_size" if size else "learner.workers"
                raise ValueError(
                    f"sft.batch_size is {sft.batch_size}; it must be a multiple of {at_once} "
                    f"({whose})"
                )
        return self

    @model_validator(mode="after")
    def _caps_are_reached(self) -> Recipe:
        longest = self.rollout.max_response_tokens
        if self.data.eval_caps and max(self.data.eval_caps) > longest:
            raise ValueError(
                f"data.eval_caps: {max(self.data.eval_caps)} tokens are more than "
                f"rollout.max_response_tokens ({longest}) allows a response"
            )
        return self

    @model_validator(mode="after")
    def _engines_may_be_ahead(self) -> Recipe:
        ahead = self.rl.max_staleness if self.rl else 0
        if ahead and (self.rollout.placement == "shared" or self.dealing == "fixed"):
            raise ValueError(
                f"rl.max_staleness is {ahead}: engines that go on while the learner steps need "
                "devices of their own (rollout.placement: separate) and rollout.dealing: free"
            )
        return self

    @model_validator(mode="after")
    def _samples_are_of_the_policy(self) -> Recipe:
        """The loss is that of the distribution that the responses are drawn from."""
        rl, rollout = self.active_rl, self.rollout
        if rl is None:
            return self
        if rollout.top_p < 1:
            raise ValueError(
                f"rollout.top_p is {rollout.top_p}: RL would sample from another distribution than "
                "the one whose log-probs its loss uses; set it to 1"
            )
        known = [
            key
            for key, is_used in (
                ("rl.max_staleness", rl.max_staleness > 0),
                ("rl.older_segments: train", rl.older_segments == "train"),
                ("rl.loss.ratio_band", rl.loss.ratio_band is not None),
            )
            if is_used
        ]
        if rollout.temperature != 1 and known:
            raise ValueError(
                f"rollout.temperature is {rollout.temperature}: the engines' log-probs are those "
                f"of temperature 1, and {', '.join(known)} would compare them with the learner's, "
                "which are not; set it to 1, or leave these out"
            )
        return self

    @model_validator(mode="after")
    def _overlong_is_near_the_limit(self) -> Recipe:
        buffer = self.rl.length.overlong_tokens if self.rl else 0
        if buffer >= self.rollout.max_response_tokens:
            raise ValueError(
                f"rl.length.overlong_tokens is {buffer}: it must be below "
                f"rollout.max_response_tokens ({self.rollout.max_response_tokens})"
            )
        return self

    @model_validator(mode="after")
    def _a_pool_is_finite(self) -> Recipe:
        sampler = self.rl.sampler if self.rl else None
        endless = any(source.format == "procedural" for source in self.data.train)
        if sampler and sampler.kind != "uniform" and endless and not sampler.pool_problems:
            raise ValueError(
                f"rl.sampler.kind is {sampler.kind} and a procedural source of data.train has no "
                "end: give rl.sampler.pool_problems, how many problems to draw from"
            )
        if sampler and self.rl:
            wanted = self.rl.problems_per_iteration
            if 0 < sampler.pool_problems < wanted:
                raise ValueError(
                    f"rl.sampler.pool_problems is {sampler.pool_problems}, but an iteration takes "
                    f"{wanted} different problems; raise it"
                )
        return self

    @model_validator(mode="after")
    def _stages_are_described(self) -> Recipe:
        for stage in self.stages:
            if getattr(self, stage) is None:
                raise ValueError(f"stages lists {stage!r}: the recipe needs a section `{stage}:`")
        return self
