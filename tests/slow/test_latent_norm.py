"""The eps that vLLM's own modules have when the engine is built."""

from __future__ import annotations

from pathlib import Path

from benchmarks.agreement import engine_settings
from rollouts.engine import Engine
from rollouts.vllm_workarounds import LATENT_NORM_EPS_KEY, REFERENCE_LATENT_NORM_EPS


def test_eps_is_set_before_anything_is_compiled(tiny_checkpoint: Path, monkeypatch) -> None:
    """And in the configuration, by which compiled code is found again."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    seen: list[float] = []
    measure = CPUWorker.determine_available_memory

    def look_first(worker):
        for name, module in worker.model_runner.get_model().named_modules():
            if name.endswith("kv_a_layernorm"):
                seen.append(module.variance_epsilon)
        config = worker.vllm_config.model_config.hf_config.text_config
        assert getattr(config, LATENT_NORM_EPS_KEY) == REFERENCE_LATENT_NORM_EPS
        return measure(worker)

    monkeypatch.setattr(CPUWorker, "determine_available_memory", look_first)
    Engine(engine_settings(tiny_checkpoint))
    assert seen == [REFERENCE_LATENT_NORM_EPS] * 3
