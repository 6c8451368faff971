"""Configuration of Kimi-VL, readable from the released `config.json` without remote code."""

from __future__ import annotations

from transformers import DeepseekV3Config, PreTrainedConfig

from thinking_rl.files.kimi_vl_a3b import RELEASED_TEXT


class MoonViTConfig(PreTrainedConfig):
    """The vision encoder: native resolution, 14 x 14 patches, 2 x 2 patches to a token."""

    model_type = "moonvit"

    def __init__(
        self,
        patch_size: int = 14,
        init_pos_emb_height: int = 64,
        init_pos_emb_width: int = 64,
        num_attention_heads: int = 16,
        num_hidden_layers: int = 27,
        hidden_size: int = 1152,
        intermediate_size: int = 4304,
        merge_kernel_size: tuple[int, int] = (2, 2),
        initializer_range: float = 0.02,
        **kwargs,
    ):
        self.patch_size = patch_size
        self.init_pos_emb_height = init_pos_emb_height
        self.init_pos_emb_width = init_pos_emb_width
        self.num_attention_heads = num_attention_heads
        self.num_hidden_layers = num_hidden_layers
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.merge_kernel_size = tuple(merge_kernel_size)
        self.initializer_range = initializer_range
        super().__init__(**kwargs)


class KimiVLConfig(PreTrainedConfig):
    """Vision encoder, projector and DeepSeek-V3-style decoder.

    The decoder is transformers' own. Its configuration reads the released spelling
    (`rope_theta`, `rope_scaling: null`), and its key/value layer norm keeps eps 1e-6 while every
    other norm uses `rms_norm_eps`, as in the released reference code.
    """

    model_type = "kimi_vl"
    sub_configs = {"vision_config": MoonViTConfig, "text_config": DeepseekV3Config}  # noqa: RUF012

    def __init__(
        self,
        vision_config: dict | MoonViTConfig | None = None,
        text_config: dict | DeepseekV3Config | None = None,
        ignore_index: int = -100,
        media_placeholder_token_id: int = 163605,
        pad_token_id: int = 0,
        **kwargs,
    ):
        if not isinstance(vision_config, MoonViTConfig):
            vision_config = MoonViTConfig(**(vision_config or {}))
        if not isinstance(text_config, DeepseekV3Config):
            text_config = DeepseekV3Config(**released_text_config(text_config or {}))
        self.vision_config = vision_config
        self.text_config = text_config
        self.ignore_index = ignore_index
        self.media_placeholder_token_id = media_placeholder_token_id
        super().__init__(pad_token_id=pad_token_id, **kwargs)  # pyright: ignore[reportCallIssue]


def released_text_config(values: dict) -> dict:
    """The released decoder settings over the defaults of DeepseekV3Config, which are another
    model's (8 expert groups, latent queries, a next-token-prediction layer)."""
    merged = RELEASED_TEXT | values
    if merged.get("rope_parameters"):
        merged.pop("rope_theta")
        merged.pop("rope_scaling")
    return merged
