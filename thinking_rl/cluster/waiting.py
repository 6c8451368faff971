"""Waiting for Ray actors: never without a deadline, and never silently."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from thinking_rl.cluster.stopping import check_stop

POLL_S = 1.0
"""How often a wait looks whether the user has asked to stop."""


@dataclass(frozen=True)
class Waiter:
    """Waits for actors of one kind: what they are called in errors, and what is raised for them."""

    name: str
    """What errors call an actor, with its number after it."""
    error: type[RuntimeError]
    """Raised where an actor failed, died, or did not answer in time."""
    passed_on: tuple[type[Exception], ...] = (ValueError,)
    """Errors of the user's making: raised as they are."""

    def wait(
        self, calls: Sequence[ray.ObjectRef], timeout_s: float, what: str, setting: str
    ) -> list[Any]:
        """Results of one call on each actor, in order.

        Args:
            what: the actors do, to follow "could not".
            setting: of the recipe, that gives them more time.

        Raises:
            Exception: one of `passed_on`, as the actor raised it; `error`, which names the actor,
                where it failed otherwise, died, or did not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(calls)
        results: list[Any] = [None] * len(calls)
        while waiting:  # whoever fails first is heard first: the others may be waiting for it
            left = deadline - time.monotonic()
            done, waiting = ray.wait(waiting, num_returns=1, timeout=min(max(left, 0.1), POLL_S))
            check_stop()
            if not done and left <= 0:
                late = ", ".join(str(calls.index(call)) for call in waiting)
                raise self.error(
                    f"{self.name} {late} did not {what} within {timeout_s:.0f} s; raise {setting} "
                    "if the machine is only slow"
                )
            for call in done:
                number = calls.index(call)
                results[number] = self._result(call, number, what)
        return results

    def _result(self, call: ray.ObjectRef, number: int, what: str) -> Any:
        try:
            return ray.get(call)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, self.passed_on):
                raise cause from None
            raise self.error(
                f"{self.name} {number} could not {what}: {type(cause).__name__}: {cause}"
            ) from error
        except RayActorError as error:
            reason = str(error).strip().splitlines()
            raise self.error(
                f"{self.name} {number} died and could not {what}: {reason[-1]}"
            ) from None
