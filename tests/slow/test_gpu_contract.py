"""What vLLM's own validators say, on a CPU, of our models' dims and dtypes on GPUs.

The kernels themselves are in vLLM's CUDA build; here it is only asked whether it would take them.
"""

from __future__ import annotations

import pytest
import torch

from thinking_rl.files.kimi_vl_a3b import RELEASED_TEXT
from thinking_rl.model.tiny import TEXT
from thinking_rl.plan.devices import resolve_dtype
from thinking_rl.recipe.load import load_recipe

QUICKSTART = "recipes/quickstart.yaml"
SM80, SM90 = (8, 0), (9, 0)
KERNELS = ("compile_flash_attn_varlen_func_from_specs", "flash_attn_varlen_func")


def prefill_backend(
    text: dict, dtype: torch.dtype, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The backend that vLLM would choose.

    Raises:
        ValueError: none takes it.
    """
    from vllm.platforms.interface import DeviceCapability, Platform
    from vllm.v1.attention.backends import fa_utils
    from vllm.v1.attention.backends.mla.prefill.base import MLADimensions

    for kernel in KERNELS:  # which the CPU build lacks
        if not hasattr(fa_utils, kernel):
            monkeypatch.setattr(fa_utils, kernel, None, raising=False)
    from vllm.v1.attention.backends.mla.prefill.flash_attn import FlashAttnPrefillBackend
    from vllm.v1.attention.backends.mla.prefill.selector import MLAPrefillSelectorConfig

    class Device(Platform):
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
            return DeviceCapability(*capability)

    monkeypatch.setattr(FlashAttnPrefillBackend, "is_available", classmethod(lambda cls: True))
    dims = {name: text[name] for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")}
    config = MLAPrefillSelectorConfig(dtype=dtype, mla_dimensions=MLADimensions(**dims))
    return Device.get_mla_prefill_backend_cls(config).get_name()


def decode_reasons(text: dict, dtype: torch.dtype, capability: tuple[int, int]) -> list[str]:
    """Why vLLM's latent attention of these devices (Triton's, which takes the most) refuses."""
    from vllm.platforms.interface import DeviceCapability
    from vllm.v1.attention.backends.mla.triton_mla import TritonMLABackend

    return TritonMLABackend.validate_configuration(
        head_size=text["kv_lora_rank"] + text["qk_rope_head_dim"],
        dtype=dtype,
        kv_cache_dtype="auto",
        block_size=64,
        use_mla=True,
        has_sink=False,
        use_sparse=False,
        use_mm_prefix=False,
        use_per_head_quant_scales=False,
        device_capability=DeviceCapability(*capability),
        attn_type="decoder",
    )


@pytest.mark.parametrize("capability", [SM80, SM90])
@pytest.mark.parametrize("text", [TEXT, RELEASED_TEXT], ids=["small", "released"])
def test_vllm_takes_our_dims_on_gpus(
    text: dict, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = resolve_dtype(load_recipe(QUICKSTART), gpus_gib=[80.0])
    dtype = getattr(torch, recipe.model.dtype)
    assert prefill_backend(text, dtype, capability, monkeypatch) == "FLASH_ATTN"
    assert decode_reasons(text, dtype, capability) == []


@pytest.mark.parametrize("capability", [SM80, SM90])
def test_vllm_refuses_what_the_plan_refuses(
    capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="float32"):
        prefill_backend(TEXT, torch.float32, capability, monkeypatch)
    assert "dtype not supported" in decode_reasons(TEXT, torch.float32, capability)
    with pytest.raises(ValueError, match="v_head_dim=64"):
        prefill_backend(TEXT | {"v_head_dim": 64}, torch.bfloat16, capability, monkeypatch)
