"""Engines that each lack one workaround, for test_vllm_workarounds.py, in a process of their own.

`python engine_without.py CHECKPOINT`; the last line of stdout is a JSON object.
"""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.agreement import Reference, agreement, engine_settings, render_problems
from rollouts import engine, vllm_workarounds


def rotary(checkpoint: str) -> dict:
    """Least over the prompts of the largest difference of log-probs without the rotary workaround;
    and the eps that vLLM itself gives kv_a_layernorm."""
    kept = vllm_workarounds.CPU_COMPILATION, vllm_workarounds.LATENT_NORM_EPS
    vllm_workarounds.CPU_COMPILATION = {"custom_ops": ["all"]}
    vllm_workarounds.LATENT_NORM_EPS = {}
    built = engine.Engine(engine_settings(checkpoint))
    [eps] = built.llm.collective_rpc(correct_eps)
    reference = Reference(checkpoint)
    prompts = render_problems(reference.processor, reference.images)
    found = agreement(built, reference, prompts)
    vllm_workarounds.CPU_COMPILATION, vllm_workarounds.LATENT_NORM_EPS = kept
    return {"rotary": min(one.largest for one in found.values()), "eps": eps}


def correct_eps(worker) -> list[float]:
    """Each eps that vLLM itself gives kv_a_layernorm, which then gets the reference's."""
    eps: set[float] = set()
    for name, module in worker.model_runner.get_model().named_modules():
        if name.endswith("kv_a_layernorm"):
            eps.add(module.variance_epsilon)
            module.variance_epsilon = vllm_workarounds.REFERENCE_LATENT_NORM_EPS
    return sorted(eps)


def router(checkpoint: str) -> float:
    """Largest difference of a bfloat16 engine's router logits from the float32 product."""
    differences = []

    def compare(gate, arguments, output) -> None:
        exact = torch.nn.functional.linear(arguments[0].float(), weights[gate].float())
        differences.append((output[0].float() - exact).abs().max().item())

    built = engine.Engine(engine_settings(checkpoint, dtype="bfloat16"))
    reference = Reference(checkpoint, torch.bfloat16)
    reference.publish(built)
    ours = dict(reference.model.named_parameters())
    executor = built.llm.llm_engine.model_executor
    model = executor.driver_worker.worker.model_runner.get_model()  # pyright: ignore[reportAttributeAccessIssue]
    weights = {
        module: ours[f"{name}.weight"]
        for name, module in model.named_modules()
        if name.endswith("mlp.gate")
    }
    for gate in weights:
        gate.register_forward_hook(compare)
    agreement(built, reference, render_problems(reference.processor, reference.images))
    return max(differences)


def main() -> None:
    checkpoint = sys.argv[1]
    keep = engine.float32_router_on_cpu
    engine.float32_router_on_cpu = lambda: None  # first: once in place, it stays
    without = router(checkpoint)
    engine.float32_router_on_cpu = keep
    found = {"router": without, "router, worked around": router(checkpoint)}
    print(json.dumps(found | rotary(checkpoint)))


if __name__ == "__main__":
    main()
