"""Loaded by every process that vLLM starts (entry point `vllm.general_plugins`)."""

from __future__ import annotations


def register() -> None:
    """Let vLLM find our tokenizer and processor for Kimi-VL checkpoints, without remote code, and
    build the model as the reference has it."""
    from vllm.transformers_utils.configs.kimi_vl import KimiVLConfig

    import thinking_rl.model  # noqa: F401 (registers our own configuration class)
    from rollouts.vllm_workarounds import latent_norm_eps_from_configuration
    from thinking_rl.model.processing import register_processing

    register_processing(KimiVLConfig)
    latent_norm_eps_from_configuration()
