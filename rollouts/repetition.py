"""Responses that go round in a loop, found while they are sampled.

vLLM's own detection counts repeats alike for every period: four of one token end an honest `0000`,
and what spares it lets loops of odd periods run half as long again. It looks at every period anew
for every token, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_PERIOD = 200
"""Tokens."""
LEAST_REPEATS = 4
"""Times that a loop's tokens stand one after the other."""
LEAST_TOKENS = 64
"""Of all repeats together."""
CHUNK = 512

_PERIODS = np.arange(LONGEST_PERIOD, 0, -1)
_NEEDED = np.maximum(LEAST_REPEATS * _PERIODS, LEAST_TOKENS) - _PERIODS


class LoopDetector:
    """Reads a response's tokens as they come. A token costs one comparison for each period, however
    long the response is."""

    def __init__(self) -> None:
        self._tail = np.full(LONGEST_PERIOD, -1, dtype=np.int64)
        self._runs = np.zeros(LONGEST_PERIOD, dtype=np.int64)  # tokens equal to those a period ago

    def feed(self, token_ids: Sequence[int]) -> int | None:
        """How many of the new tokens there are up to the one that completes a loop; None: there is
        no loop. After a loop nothing more may be fed."""
        for start in range(0, len(token_ids), CHUNK):
            if end := self._feed(token_ids[start : start + CHUNK]):
                return start + end
        return None

    def _feed(self, token_ids: Sequence[int]) -> int | None:
        tokens = np.concatenate([self._tail, np.asarray(token_ids, dtype=np.int64)])
        windows = np.lib.stride_tricks.sliding_window_view(tokens, LONGEST_PERIOD + 1)
        places = np.arange(len(token_ids))[:, None]
        breaks = np.where(windows[:, :-1] == windows[:, -1:], -1 - self._runs, places)
        runs = places - np.maximum.accumulate(breaks, axis=0)
        self._tail, self._runs = tokens[-LONGEST_PERIOD:], runs[-1]
        looped = (runs >= _NEEDED).any(axis=1)
        return int(looped.argmax()) + 1 if looped.any() else None
