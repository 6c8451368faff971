"""How good the policy is now, on problems that training never sees."""

from __future__ import annotations

from dataclasses import replace

from rollouts.collect import collect
from rollouts.prompts import Sampling
from thinking_rl.report.evaluation import held_out_result
from thinking_rl.run.session import Session
from thinking_rl.types import Group


def evaluate(session: Session, name: str) -> None:
    """Answer the held-out problems once greedily and `data.eval_samples` times at
    `data.eval_temperature`, and report what came of it. Accuracies are over the responses that were
    graded, by a grader that judges answers; one that was cut off is wrong, or judged as it stands
    where the recipe says so, and never left out."""
    data = session.recipe.data
    held_out = replace(session.sampling, purpose="evaluation")
    once = replace(held_out, samples=1, temperature=0.0)
    often = replace(held_out, samples=data.eval_samples, temperature=data.eval_temperature)
    greedy = _answered(session, once, f"{name}/greedy")
    sampled = _answered(session, often, name)
    session.reporter.samples(name, sampled, session.images.encoded)
    result = held_out_result(greedy, sampled, data.eval_caps, data.eval_step_mark)
    session.reporter.evaluation(name, result)


def _answered(session: Session, sampling: Sampling, at: str) -> list[Group]:
    """The held-out problems with graded responses, which are kept too."""
    groups = collect(session.pool, session.processor, session.held_out, sampling)
    groups = session.grader.grade(groups, may_mask=False)
    session.responses.write("evaluation", at, groups)
    return groups


def evaluate_once(session: Session, name: str) -> None:
    """Evaluate, unless the run that goes on has done so."""
    if name not in session.reporter.evaluations:
        evaluate(session, name)
