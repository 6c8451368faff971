"""What an engine may be asked, by the state it is in."""

from __future__ import annotations

import enum


class EngineState(enum.StrEnum):
    """Of one engine. It answers requests in `SERVING` alone."""

    STARTING = "starting"
    """For the first time."""
    STALE = "stale"
    """Up, but without weights that are proved to be those of the current policy."""
    SERVING = "serving"
    """Proved to have the current policy's weights."""
    SILENT = "silent"
    """It did not answer in time, and is to be ended."""
    DEAD = "dead"
    """Its process has ended."""
    RESTARTING = "restarting"
    """In a new process."""


class Event(enum.StrEnum):
    """What happens to an engine."""

    STARTED = "started"
    """It loaded the checkpoint."""
    PROVED = "proved"
    """It was compared with the learner and agrees."""
    OUTDATED = "outdated"
    """The policy has gone on, or the engine's weights are being replaced."""
    FELL_SILENT = "fell silent"
    """It missed a deadline."""
    DIED = "died"
    """Its process has ended, or failed and was ended."""
    RESTARTED = "restarted"
    """A new process is on its way."""


S, E = EngineState, Event
TRANSITIONS = {
    (S.STARTING, E.STARTED): S.STALE,
    (S.STARTING, E.FELL_SILENT): S.SILENT,
    (S.STARTING, E.DIED): S.DEAD,
    (S.STALE, E.PROVED): S.SERVING,
    (S.STALE, E.OUTDATED): S.STALE,
    (S.STALE, E.FELL_SILENT): S.SILENT,
    (S.STALE, E.DIED): S.DEAD,
    (S.SERVING, E.PROVED): S.SERVING,
    (S.SERVING, E.OUTDATED): S.STALE,
    (S.SERVING, E.FELL_SILENT): S.SILENT,
    (S.SERVING, E.DIED): S.DEAD,
    (S.SILENT, E.DIED): S.DEAD,
    (S.DEAD, E.RESTARTED): S.RESTARTING,
    (S.RESTARTING, E.STARTED): S.STALE,
    (S.RESTARTING, E.FELL_SILENT): S.SILENT,
    (S.RESTARTING, E.DIED): S.DEAD,
}
"""State and event to the next state; whatever is not listed cannot happen."""
UP = (S.STALE, S.SERVING)
"""States of an engine that can be called."""


def after(state: EngineState, event: Event) -> EngineState:
    """The state that an event leads to.

    Raises:
        ValueError: it cannot happen in this state.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"an engine that is {state} cannot have {event}") from None
