"""Every function and class of vLLM that our code calls or patches still takes what we pass.

A new version of vLLM that fails here names what changed. What one of them means is held by the
tests that run an engine.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROLLOUTS = Path(__file__).parents[2] / "rollouts"
SELF = "self"
RELOAD = "vllm.model_executor.model_loader.reload"
INPUTS = "vllm.multimodal.inputs"

CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # module:name -> positional arguments, keywords
    "vllm:LLM.reset_prefix_cache": ((SELF,), ()),
    "vllm:LLM.sleep": ((SELF,), ("level",)),
    "vllm:LLM.wake_up": ((SELF,), ("tags",)),
    "vllm:LLM.collective_rpc": ((SELF, "method"), ("args",)),
    "vllm.v1.engine.llm_engine:LLMEngine.add_request": ((SELF, "name", "prompt", "sampling"), ()),
    "vllm.v1.engine.llm_engine:LLMEngine.step": ((SELF,), ()),
    "vllm.v1.engine.llm_engine:LLMEngine.abort_request": ((SELF, "names"), ()),
    "vllm.v1.engine.core_client:InprocClient.reset_encoder_cache": ((SELF,), ()),
    "vllm.inputs.engine:tokens_input": (("ids",), ()),
    "vllm.inputs.engine:mm_input": (("ids",), ("mm_kwargs", "mm_hashes", "mm_placeholders")),
    "vllm.sampling_params:SamplingParams": (
        (),
        (
            *("temperature", "top_p", "max_tokens", "seed", "logprobs", "stop_token_ids"),
            *("detokenize", "output_kind"),
        ),
    ),
    f"{INPUTS}:MultiModalFieldConfig.flat_from_sizes": (("modality", "sizes"), ()),
    f"{INPUTS}:MultiModalFieldConfig.batched": (("modality",), ("keep_on_cpu",)),
    f"{INPUTS}:MultiModalKwargsItems.from_hf_inputs": (("features", "fields"), ()),
    f"{INPUTS}:PlaceholderRange": ((), ("offset", "length")),
    f"{RELOAD}:initialize_layerwise_reload": (("model",), ()),
    f"{RELOAD}:finalize_layerwise_reload": (("model", "model_config"), ()),
    "vllm.config:set_current_vllm_config": (("vllm_config",), ()),
    "vllm.platforms:current_platform.is_cpu": ((), ()),
    "vllm.model_executor.models.kimi_vl:KimiVLForConditionalGeneration.load_weights": (
        (SELF, "weights"),
        (),
    ),
    "vllm.model_executor.layers.fused_moe.router.gate_linear:GateLinear.__init__": (
        (SELF, "input_size", "output_size"),
        ("force_fp32_compute",),
    ),
    "vllm.transformers_utils.configs.kimi_vl:KimiVLConfig": ((), ()),
}
READ = {
    # module:class -> attributes that we read of its instances
    "vllm.sampling_params:RequestOutputKind": ("FINAL_ONLY",),
    "vllm.sampling_params:SamplingParams": ("logit_bias",),
    "vllm.v1.engine.output_processor:OutputProcessor": ("request_states",),
    "vllm.v1.engine.output_processor:RequestState": ("detokenizer", "logprobs_processor"),
    "vllm.v1.engine.detokenizer:IncrementalDetokenizer": ("output_token_ids",),
    "vllm.v1.engine.logprobs:LogprobsProcessor": ("logprobs",),
    "vllm.v1.engine.llm_engine:LLMEngine": ("engine_core", "output_processor"),
    "vllm.outputs:CompletionOutput": ("token_ids", "logprobs", "finish_reason"),
    "vllm.v1.worker.worker_base:WorkerBase": ("vllm_config",),
    "vllm.v1.worker.gpu_worker:Worker": ("model_runner",),
    "vllm.model_executor.models.deepseek_v2:DeepseekV2MLAAttention": ("kv_a_layernorm",),
}


def find(place: str) -> Any:
    module, _, path = place.partition(":")
    found = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("place", CALLS)
def test_it_takes_what_we_pass(place: str) -> None:
    positional, keywords = CALLS[place]
    inspect.signature(find(place)).bind(*positional, **dict.fromkeys(keywords))


def test_llm_takes_our_settings(tmp_path: Path) -> None:
    """Keywords that its constructor only passes on are fields of the engine's arguments."""
    from vllm.engine.arg_utils import EngineArgs

    from rollouts.engine import Engine
    from rollouts.vllm_workarounds import engine_arguments

    called = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(inspect.getmodule(Engine))))  # pyright: ignore[reportArgumentType]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "LLM"
    ]
    passed = {keyword.arg for call in called for keyword in call.keywords if keyword.arg}
    passed |= engine_arguments(on_cpu=True).keys() | engine_arguments(on_cpu=False).keys()
    assert {"max_model_len", "worker_extension_cls", "hf_overrides"} <= passed
    taken = set(inspect.signature(find("vllm:LLM.__init__")).parameters)
    assert passed <= taken | {one.name for one in dataclasses.fields(EngineArgs)}


@pytest.mark.parametrize("place", READ)
def test_it_has_what_we_read(place: str) -> None:
    """As a class attribute, a field, or something that its code sets on itself."""
    found = find(place)
    for name in READ[place]:
        source = "".join(
            inspect.getsource(one) for one in found.__mro__ if "vllm" in one.__module__
        )
        annotated = name in getattr(found, "__annotations__", {})
        assert hasattr(found, name) or annotated or f"self.{name}" in source, name


def test_attention_is_built_with_a_configuration_of_its_own() -> None:
    """From which `latent_norm_eps_from_configuration` takes the eps."""
    attention = find("vllm.model_executor.models.deepseek_v2:DeepseekV2MLAAttention.__init__")
    assert "config" in inspect.signature(attention).parameters


def test_our_extension_hides_nothing_of_a_worker() -> None:
    from rollouts.vllm_workarounds import WorkerExtension

    worker = find("vllm.v1.worker.gpu_worker:Worker")
    ours = [name for name in vars(WorkerExtension) if not name.startswith("__")]
    assert ours
    assert [name for name in ours if hasattr(worker, name)] == []


def test_the_tables_hold_all_that_we_import() -> None:
    listed = {place.partition(".__init__")[0] for place in (*CALLS, *READ)}
    names = {f"{one.split(':')[0]}:{one.split(':')[1].split('.')[0]}" for one in listed}
    imported = set[str]()
    for file in ROLLOUTS.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm"):
                imported |= {f"{node.module}:{alias.name}" for alias in node.names}
    imported -= {"vllm.model_executor.models:deepseek_v2"}  # the module, whose class is patched
    assert imported
    assert imported <= names
