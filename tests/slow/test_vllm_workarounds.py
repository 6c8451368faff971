"""Each fault of vLLM that is worked around shows without its workaround, and not with it.

A test that fails here after an upgrade means that the workaround can go.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.agreement import Reference, agreement, render_problems
from rollouts.prompts import render_prompt
from rollouts.vllm_workarounds import REFERENCE_LATENT_NORM_EPS, WorkerExtension
from thinking_rl.types import Problem

ROOT = Path(__file__).parents[2]
TOLERANCE = 5e-4
FAULT = 0.01
"""A difference of log-probs that no rounding explains."""


@pytest.fixture(scope="module")
def without(sharp_checkpoint: Path) -> dict:
    """What engines say that each lack a workaround, from another process."""
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "support" / "engine_without.py"),
            str(sharp_checkpoint),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def largest(engine, reference: Reference, kind: str = "") -> float:
    """Largest difference of log-probs over the prompts whose name holds `kind`."""
    prompts = render_problems(reference.processor, reference.images)
    chosen = {name: prompt for name, prompt in prompts.items() if kind in name}
    return max(found.largest for found in agreement(engine, reference, chosen).values())


def test_rotary_kernel(without: dict, engine, reference: Reference) -> None:
    assert without["rotary"] > FAULT
    assert largest(engine, reference) < TOLERANCE


def test_router_is_float32(without: dict) -> None:
    assert without["router"] > 1e-3
    assert without["router, worked around"] < 1e-4


def test_eps_of_the_latent_norm(without: dict, engine, reference: Reference) -> None:
    assert without["eps"] != [REFERENCE_LATENT_NORM_EPS]
    with torch.no_grad():  # small latents, which the eps outweighs
        for name, parameter in reference.model.named_parameters():
            if name.endswith("kv_a_proj_with_mqa.weight"):
                parameter[:512] *= 1e-3
    reference.publish(engine)
    assert largest(engine, reference) < TOLERANCE

    def set_eps(worker, value: float) -> None:
        for name, module in worker.model_runner.get_model().named_modules():
            if name.endswith("kv_a_layernorm"):
                module.variance_epsilon = value

    engine.llm.collective_rpc(set_eps, args=(without["eps"][0],))
    engine.llm.reset_prefix_cache()
    assert largest(engine, reference) > FAULT
    engine.llm.collective_rpc(set_eps, args=(REFERENCE_LATENT_NORM_EPS,))
    engine.llm.reset_prefix_cache()
    assert largest(engine, reference) < TOLERANCE


def test_experts_are_packed_again_at_every_update(
    engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_reset(worker) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(worker.model_runner.get_model())

    reference.publish(engine)
    with monkeypatch.context() as patch:
        patch.setattr(WorkerExtension, "begin_update", without_reset)
        reference.publish(engine)  # the very same weights
        assert largest(engine, reference, "text") > FAULT
    for _ in range(3):
        reference.publish(engine)
        assert largest(engine, reference, "text") < TOLERANCE


def test_encoder_cache_is_dropped_with_the_old_weights(
    engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert largest(engine, reference, "one image") < TOLERANCE  # fills the cache
    with torch.no_grad():
        for parameter in reference.model.vision_tower.parameters():
            parameter.mul_(1.5)
    with monkeypatch.context() as patch:
        patch.setattr(engine.llm.llm_engine.engine_core, "reset_encoder_cache", lambda: None)
        reference.publish(engine)
        assert largest(engine, reference, "one image") > FAULT
    reference.publish(engine)
    assert largest(engine, reference, "one image") < TOLERANCE


def test_prefix_cache_is_dropped_with_the_old_weights(
    engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine.llm.llm_engine.vllm_config.cache_config.enable_prefix_caching:
        pytest.skip("vLLM keeps no prefix cache for this model on this machine")
    problem = Problem("long", "three " * 30, "3")  # longer than a block of the cache
    prompts = {"long": render_prompt(reference.processor, reference.images, problem)}
    assert agreement(engine, reference, prompts)["long"].largest < TOLERANCE  # fills the cache
    reference.change(seed=5)
    with monkeypatch.context() as patch:
        patch.setattr(engine.llm, "reset_prefix_cache", lambda: True)
        reference.publish(engine)
        assert agreement(engine, reference, prompts)["long"].largest > FAULT
    reference.publish(engine)
    assert agreement(engine, reference, prompts)["long"].largest < TOLERANCE
