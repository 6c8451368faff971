"""Checkpoints of RL: what a run goes on from, also where it was stopped in the middle."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rollouts.pool import RolloutError
from thinking_rl.cluster.stopping import unstopped
from thinking_rl.learner.group import Learner
from thinking_rl.run.session import Session


class LastPolicy:
    """What it takes to save the policy after an iteration while the next one samples: a run that is
    stopped there loses nothing."""

    def __init__(self, session: Session, learner: Learner) -> None:
        self.session, self.learner = session, learner
        self._kept: tuple[int, dict[str, Any]] | None = None

    def keep(self, done: int) -> None:
        """The learner holds the policy after `done` iterations, and nothing is saved of it yet."""
        is_there = self.session.folder.rl_checkpoint(done).exists()
        self._kept = None if is_there or not done else (done, self.session.state.snapshot())

    def drop(self) -> None:
        """The learner steps: it holds that policy no more."""
        self._kept = None

    def __enter__(self) -> LastPolicy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt | RolloutError) and self._kept:
            with unstopped():
                save_checkpoint(self.session, self.learner, *self._kept)


def save_checkpoint(
    session: Session, learner: Learner, done: int, state: dict[str, Any] | None = None
) -> None:
    """Write what it takes to go on after `done` iterations, whole or not at all, and drop the
    oldest beyond the last few.

    Args:
        state: a snapshot; None: one of now.
    """
    with session.folder.whole(session.folder.rl_checkpoint(done)) as folder:
        learner.save(str(folder))
        session.state.save(folder, done, state)
    session.folder.drop_old_checkpoints()
    session.reporter.event("checkpoint", f"saved after {done} iterations", iteration=done)
