"""What the engine's processes do around vLLM's own code, with stand-ins for it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

from rollouts import vllm_workarounds
from rollouts.vllm_workarounds import WorkerExtension, engine_arguments


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch):
    """Modules by their names, which record what is called."""
    said: list[str] = []

    @contextmanager
    def configured(config):
        said.append(f"configured as {config.name}")
        yield
        said.append("configured no more")

    def module(name: str, **members) -> None:
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)

    platform = SimpleNamespace(is_cpu=lambda: True)
    for name in ("vllm", "vllm.model_executor", "vllm.model_executor.model_loader"):
        module(name)
    module("vllm.config", set_current_vllm_config=configured)
    module("vllm.platforms", current_platform=platform)
    module(
        "vllm.model_executor.model_loader.reload",
        initialize_layerwise_reload=lambda model: said.append("begin"),
        finalize_layerwise_reload=lambda model, config: said.append("end"),
    )
    return SimpleNamespace(said=said, platform=platform, module=module)


class Worker(WorkerExtension):
    def __init__(self, vllm) -> None:
        self.experts = SimpleNamespace(quant_method=SimpleNamespace(moe_kernel="made"))
        model = SimpleNamespace(
            modules=lambda: [SimpleNamespace(), self.experts],
            load_weights=lambda tensors: vllm.said.append(f"load {list(tensors)}"),
        )
        self.model_runner = SimpleNamespace(get_model=lambda: model)
        self.vllm_config = SimpleNamespace(name="this engine", model_config=None)


def test_new_weights_are_taken_under_the_engines_configuration(vllm) -> None:
    worker = Worker(vllm)
    worker.begin_update()
    worker.load_bucket([("a", None)])  # pyright: ignore[reportArgumentType]
    worker.end_update()
    around = "configured as this engine", "configured no more"
    calls = "begin", "load [('a', None)]", "end"
    assert vllm.said == [line for call in calls for line in (around[0], call, around[1])]


@pytest.mark.parametrize(("on_cpu", "left"), [(True, None), (False, "made")])
def test_kernels_of_experts_are_dropped_on_cpus_alone(vllm, on_cpu, left) -> None:
    vllm.platform.is_cpu = lambda: on_cpu
    worker = Worker(vllm)
    worker.begin_update()
    assert worker.experts.quant_method.moe_kernel == left


def test_the_latent_norm_is_built_with_the_configurations_eps(vllm) -> None:
    class Attention:
        def __init__(self, vllm_config, config, prefix="") -> None:
            self.kv_a_layernorm = SimpleNamespace(variance_epsilon=1e-5)

    models = ModuleType("vllm.model_executor.models")
    models.deepseek_v2 = SimpleNamespace(DeepseekV2MLAAttention=Attention)  # pyright: ignore[reportAttributeAccessIssue]
    vllm.module("vllm.model_executor.models", **vars(models))
    for _ in range(2):  # a process may load the plugin twice
        vllm_workarounds.latent_norm_eps_from_configuration()
    overrides = engine_arguments(on_cpu=False)["hf_overrides"]["text_config"]
    ours, others = SimpleNamespace(**overrides), SimpleNamespace()
    assert Attention(None, ours).kv_a_layernorm.variance_epsilon == 1e-6
    assert Attention(None, config=ours).kv_a_layernorm.variance_epsilon == 1e-6
    assert Attention(None, others).kv_a_layernorm.variance_epsilon == 1e-5
