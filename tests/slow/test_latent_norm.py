"""The eps that vLLM's own modules have when the engine is built; in a process of its own, since a
second engine would end the first one's groups."""

from __future__ import annotations

from pathlib import Path

import ranks

from benchmarks.agreement import engine_settings
from rollouts.engine import Engine
from rollouts.vllm_workarounds import LATENT_NORM_EPS_KEY, REFERENCE_LATENT_NORM_EPS


def eps_when_built(rank: int, world_size: int, checkpoint: Path) -> tuple[list[float], float]:
    """Of every layer before anything is compiled, and in the configuration."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    seen: list[float] = []
    configured: list[float] = []
    measure = CPUWorker.determine_available_memory

    def look_first(worker):
        for name, module in worker.model_runner.get_model().named_modules():
            if name.endswith("kv_a_layernorm"):
                seen.append(module.variance_epsilon)
        config = worker.vllm_config.model_config.hf_config.text_config
        configured.append(getattr(config, LATENT_NORM_EPS_KEY))
        return measure(worker)

    CPUWorker.determine_available_memory = look_first  # pyright: ignore[reportAttributeAccessIssue]
    Engine(engine_settings(checkpoint))
    return seen, configured[0]


def test_eps_is_set_before_anything_is_compiled(tiny_checkpoint: Path) -> None:
    """And in the configuration, by which compiled code is found again."""
    [(seen, configured)] = ranks.run(eps_when_built, 1, tiny_checkpoint, timeout_s=600)
    assert seen == [REFERENCE_LATENT_NORM_EPS] * 3
    assert configured == REFERENCE_LATENT_NORM_EPS
