"""Run folders made without a run: as many responses as a test asks for, with real pictures."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from eval.statistics import wilson_interval
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.model.image_store import hash_of
from thinking_rl.report.events import EventLog, this_process
from thinking_rl.report.responses import ResponseLog
from thinking_rl.types import FinishReason, Group, Problem, Score, Segment, Trajectory

SCRIPT = "<script>window.hacked = true</script><img src=x onerror='window.hacked=true'>"
"""What a response says that wants to be more than text."""
HELD_OUT = 12
SOURCES = ("shapes", "sums")
RECIPE = """\
seed: 0
run_dir: {run_dir}
stages: [sft, rl]
model: {{path: tiny, dtype: float32}}
data:
  train: [{{format: procedural}}]
  eval: [{{format: procedural}}]
sft:
  data: [{{format: procedural}}]
  steps: 20
  optimizer: {{learning_rate: 1.0e-3}}
rl:
  iterations: {iterations}
  problems_per_iteration: 8
  samples_per_problem: 4
  tau: 0.5
  optimizer: {{learning_rate: 1.0e-3}}
rollout: {{max_response_tokens: 64, max_model_tokens: 256}}
learner: {{tokens_per_microbatch: 512}}
rewards: {{parts: [{{grader: math_answer}}, {{grader: format}}]}}
"""


def picture(number: int) -> bytes:
    """A PNG that shows a number of squares; another one for each number."""
    image = Image.new("RGB", (112, 84), (250, 250, 246))
    draw = ImageDraw.Draw(image)
    for place in range(number % 7 + 1):
        left = 8 + place * 14
        draw.rectangle((left, 20 + number % 40, left + 9, 29 + number % 40), fill=(40, 80, 140))
    image.putpixel((0, 0), (number % 256, number // 256 % 256, 7))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def problem(number: int) -> Problem:
    """Problem `number`; half of them show a picture."""
    source = SOURCES[number % 2]
    pictured = (picture(number),) if source == "shapes" else ()
    return Problem(
        id=f"{source}-{number}",
        question=f"<image1>How many squares, plus {number}? Use $x^2$."
        if pictured
        else f"What is {number} + {number + 1}? Write $\\frac{{a}}{{b}}$.",
        answer=str(number + 1),
        images=pictured,
        source=source,
        subject="counting",
        level=number % 5 + 1,
    )


def group(
    one: Problem, samples: int, chance: float, draw: random.Random, version: int = 0
) -> Group:
    """A group whose responses are right with a given chance."""
    scores, responses = [], []
    for sample in range(samples):
        right, failed = draw.random() < chance, draw.random() < 0.02
        answer = one.answer if right else str(draw.randrange(90))
        said = SCRIPT if sample == 1 else "so it must be"
        text = (
            f"◁think▷I read the question, {said} $\\sqrt{{{answer}^2}} = {answer}$.◁/think▷"
            f"The answer is $\\boxed{{{answer}}}$."
        )
        length = draw.randrange(20, 60)
        half = length // 2
        ids = tuple(draw.randrange(33, 120) for _ in range(length))
        values = tuple(-draw.expovariate(3) for _ in range(length))
        responses.append(
            Trajectory(
                problem_id=one.id,
                prompt_ids=(1, 2, 3),
                image_hashes=tuple(hash_of(p) for p in one.images if isinstance(p, bytes)),
                segments=(
                    Segment(ids[:half], values[:half], version),
                    Segment(ids[half:], values[half:], version + 1),
                ),
                text=text,
                finish_reason=finish_reason(draw.random()),
            )
        )
        scores.append(
            Score(0.0, error="timeout: 5 s")
            if failed
            else Score(
                float(right),
                right,
                extracted=answer,
                parts={"math_answer": float(right), "format": float(draw.random() < 0.8)},
            )
        )
    mean = sum(score.value for score in scores) / samples
    return Group(one, tuple(responses), tuple(scores), tuple(s.value - mean for s in scores))


def finish_reason(chance: float) -> FinishReason:
    if chance < 0.05:
        return FinishReason.REPETITION
    return FinishReason.LENGTH if chance < 0.15 else FinishReason.STOP


class Writer:
    """Appends to a run's folder what a run would, iteration by iteration."""

    def __init__(self, path: Path, iterations: int = 8, seed: int = 0, skill: float = 0.25) -> None:
        """skill: share of right answers at the start; it rises by a half until the end."""
        self.folder = RunFolder(path)
        self.iterations, self.skill = iterations, skill
        self.draw = random.Random(seed)
        path.mkdir(parents=True, exist_ok=True)
        self.folder.recipe.write_text(RECIPE.format(run_dir=path, iterations=iterations))
        self.pictures = dict[str, bytes]()
        self.responses = ResponseLog(self.folder, 4.0, self.pictures.__getitem__)
        self.events = EventLog(self.folder)
        self.events.write("started", "the run starts", **this_process())
        self.now = time.time() - 3600

    def write(self, stage: str, at: str | int, problems: Sequence[Problem], samples: int) -> float:
        """Responses to some problems; returns the share that is right."""
        done = at if isinstance(at, int) else {"start": 0}.get(at, self.iterations)
        chance = self.skill + 0.5 * done / self.iterations
        groups = [group(one, samples, chance, self.draw, done) for one in problems]
        for one in problems:
            self.pictures |= {hash_of(p): p for p in one.images if isinstance(p, bytes)}
        responses = [t for g in groups for t in g.trajectories] if stage == "proof" else []
        learned = {
            "learner_logprobs": [
                [v - self.draw.gauss(0, 0.01) for v in t.logprobs] for t in responses
            ],
            "entropies": [[self.draw.uniform(0, 3) for _ in t.logprobs] for t in responses],
        }
        self.responses.write(stage, at, groups, learned if responses else None)
        verdicts = [s.correct for g in groups for s in g.scores if s.correct is not None]
        return sum(verdicts) / len(verdicts)

    def row(self, **values: object) -> None:
        """A row of metrics.jsonl."""
        with self.folder.metrics.open("a") as file:
            file.write(json.dumps({"time": round(self.now, 3), **values}) + "\n")

    def evaluation(self, name: str, iteration: int) -> None:
        """An evaluation on the held-out problems."""
        held_out = [problem(10_000 + number) for number in range(HELD_OUT)]
        share = self.write("evaluation", name, held_out, 4)
        one = {"accuracy": share, "interval_95": list(wilson_interval(share * HELD_OUT, HELD_OUT))}
        result = {"greedy": one, "sampled": one}
        self.row(stage="evaluation", iteration=iteration, name=name, result=result)
        self.events.write("evaluation", f"{name}: {share:.1%} right")

    def warm_up(self) -> None:
        """The start, and 20 steps of warm-up."""
        self.evaluation("start", 0)
        for step in range(20):
            self.now += 1
            self.row(stage="sft", step=step, seconds=1.0, loss=3 / (step + 1), grad_norm=1.0)

    def iteration(self, number: int, problems: int = 8, samples: int = 4) -> None:
        """One RL iteration with its responses, row and event."""
        asked = [problem(number * problems + place) for place in range(problems)]
        share = self.write("rl", number, asked, samples)
        self.write("proof", number + 1, [problem(10_000), problem(10_001)], 1)
        draw, self.now = self.draw, self.now + 10
        phases = {"rollout": 4 + draw.random(), "grade": 0.2, "record": 0.02, "learn": 3.5}
        phases |= {"publish": 0.3 + draw.random() / 10, "prove": 0.4}
        row = {
            "seconds": sum(phases.values()) + 0.3,
            "reward": share,
            "accuracy": share,
            "length": 40 + number + draw.random(),
            "finished": 0.9,
            "tokens": 16000,
            "not_graded": draw.randrange(3),
            "groups": problems,
            "groups_with_signal": problems - 2,
            "groups_all_right": 1,
            "groups_all_wrong": 1,
            "loss": -0.6,
            "grad_norm": 10.0,
            "entropy": 0.1,
            "kl": 0.003 + draw.random() / 1000,
            "agreement": 2e-6,
            "tokens_per_s": 1500 + 100 * draw.random(),
        }
        row |= {f"seconds/{name}": value for name, value in phases.items()}
        row |= {"idle_seconds/engine 0": 0.1, "idle_seconds/engine 1": 0.5}
        self.row(stage="rl", iteration=number, **row)
        if number % 5 == 4:
            self.events.write("checkpoint", f"saved after {number + 1} iterations", stage="rl")

    def finish(self) -> None:
        """The last evaluation and the summary."""
        self.evaluation("after_rl", self.iterations)
        self.events.write("finished", "the run is finished")
        self.folder.summary.write_text(json.dumps({"seconds": {"sft": 20.0, "rl": 80.0}}))
        self.responses.close()


def finished_run(path: Path, iterations: int = 8, seed: int = 0, skill: float = 0.25) -> RunFolder:
    """A run that came to its end."""
    writer = Writer(path, iterations, seed, skill)
    writer.warm_up()
    for number in range(iterations):
        writer.iteration(number)
    writer.finish()
    return writer.folder


def rows(folder: RunFolder) -> Iterator[dict]:
    """The recorded responses."""
    yield from map(json.loads, folder.responses.read_text().splitlines())


def rows_before_damage(folder: RunFolder) -> Iterator[dict]:
    """The recorded responses of a file that holds other lines too."""
    for line in folder.responses.read_text().splitlines():
        if line.startswith('{"stage"'):
            yield json.loads(line)
