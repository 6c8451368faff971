"""How good the policy is now, on problems that training never sees."""

from __future__ import annotations

from dataclasses import replace

from eval.statistics import mean
from rollouts.collect import collect
from thinking_rl.run.session import Session
from thinking_rl.types import Outcome


def evaluate(session: Session, name: str) -> None:
    """pass@1 on the held-out problems, as a mean over `data.eval_samples` responses; over those
    alone that were graded, by a grader that judges answers. A response that was cut off is wrong,
    or judged as it stands where the recipe says so; it is never left out."""
    data = session.recipe.data
    sampling = replace(
        session.sampling, samples=data.eval_samples, temperature=data.eval_temperature
    )
    groups = collect(session.pool, session.processor, session.held_out, sampling)
    groups = session.grader.grade(groups, may_mask=False)
    session.responses.write("evaluation", name, groups)
    session.reporter.samples(name, groups, session.images.encoded)
    scores = [score for group in groups for score in group.scores]
    verdicts = [score.correct for score in scores if score.correct is not None]
    graded = [score.value for score in scores if score.outcome is not Outcome.NOT_GRADED]
    lengths = [t.length for group in groups for t in group.trajectories]
    session.reporter.evaluation(
        name,
        sum(verdicts),
        len(verdicts),
        {
            "reward": mean(graded),
            "length": mean(lengths),
            "not_graded": len(scores) - len(graded),
        },
    )


def evaluate_once(session: Session, name: str) -> None:
    """Evaluate, unless the run that goes on has done so."""
    if name not in session.reporter.evaluations:
        evaluate(session, name)
