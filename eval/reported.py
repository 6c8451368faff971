"""Scores that the Kimi-VL report gives (arXiv 2504.07491v3, tables 4 and 5, figure 13).

Percent, pass@1. The report does not state prompts, judge or temperature, and a change of prompt or
answer parsing moves MMMU by several points: compare with these only as a rough guide.
"""

from __future__ import annotations

from collections.abc import Mapping

SCORES: Mapping[str, Mapping[str, float]] = {
    "Kimi-VL-A3B-Instruct": {"mathvision": 21.4, "mathvista": 68.7, "mmmu": 57.0},
    "Kimi-VL-A3B-Thinking": {
        "mathvision": 36.8,
        "mathvista": 71.3,
        "mmmu": 61.7,
        "mmmu_pro": 43.0,
    },
    "Kimi-VL-A3B-Thinking-2506": {
        "mathvision": 56.9,
        "mathvista": 80.1,
        "mmmu": 64.0,
        "mmmu_pro": 46.3,
    },
}
"""Model -> benchmark -> score. MathVision is the full test split, MathVista testmini, MMMU the
validation split, MMMU-Pro the mean of standard and vision."""

MEAN_TOKENS: Mapping[str, Mapping[str, int]] = {
    "Kimi-VL-A3B-Thinking": {"mmmu": 2900, "mathvision": 5800},
    "Kimi-VL-A3B-Thinking-2506": {"mmmu": 2400, "mathvision": 4400},
}
"""Model -> benchmark -> mean response length in tokens."""

THINKING_BUDGETS = (1024, 2048, 4096, 8192, 16384)
"""Longest thinking allowed, in tokens, of the test-time scaling curves."""

SCALING: Mapping[str, tuple[float, ...]] = {
    "mathvision": (18.7, 22.6, 29.0, 34.0, 36.8),
    "mathvista": (66.7, 69.0, 70.9, 70.6, 71.3),
    "mmmu": (49.2, 52.4, 56.2, 60.1, 61.7),
}
"""Benchmark -> score of Kimi-VL-A3B-Thinking at each of THINKING_BUDGETS."""
