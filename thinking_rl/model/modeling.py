"""Kimi-VL: MoonViT, a projector, and transformers' DeepseekV3 decoder. No remote code.

Two ways in: `forward` follows transformers (generation, evaluation), and `packed_hidden` /
`token_logprobs` run packed rows for training. Both use the same weights and the same modules.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DeepseekV3ForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import MoeCausalLMOutputWithPast

from thinking_rl.model.attention import ATTENTION, SegmentLayout
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.kernels.logprobs import token_logprobs
from thinking_rl.model.moonvit import Grids, MoonViT, PositionTable
from thinking_rl.model.packed import PackedRow


class Projector(nn.Module):
    """2 x 2 patch vectors to one decoder embedding."""

    def __init__(self, config: KimiVLConfig):
        super().__init__()
        vision = config.vision_config
        width = vision.hidden_size * vision.merge_kernel_size[0] * vision.merge_kernel_size[1]
        self.pre_norm = nn.LayerNorm(vision.hidden_size, eps=1e-5)
        self.linear_1 = nn.Linear(width, width)
        self.linear_2 = nn.Linear(width, config.text_config.hidden_size)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """cells [N, 4, vision hidden] -> [N, decoder hidden]."""
        return self.linear_2(F.gelu(self.linear_1(self.pre_norm(cells).flatten(1))))


class KimiVLForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The whole model, with the released parameter names.

    Only the routed experts are stored differently (one 3-D tensor for all experts of a layer);
    `thinking_rl.model.weights` translates.
    """

    config: KimiVLConfig
    config_class = KimiVLConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["DeepseekV3DecoderLayer", "MoonViTBlock"]  # noqa: RUF012
    _keep_in_fp32_modules_strict = ["e_score_correction_bias"]  # noqa: RUF012

    def __init__(self, config: KimiVLConfig):
        super().__init__(config)
        config.text_config._attn_implementation = ATTENTION
        config.text_config._experts_implementation = "grouped_mm"
        self.vision_tower = MoonViT(config.vision_config)
        self.multi_modal_projector = Projector(config)
        self.language_model = DeepseekV3ForCausalLM(config.text_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PositionTable):
            nn.init.normal_(module.weight, std=self.config.vision_config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.lm_head

    def embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None,
        grids: Grids | None,
        order: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Token embeddings of input_ids [...] with each `<|media_pad|>` replaced by its image
        feature. `order` says which image each placeholder run shows; None: one each, in order.

        Without an image a dummy one passes through the vision tower with weight zero: every
        process of a sharded model then takes part in the same collectives, and every parameter
        has a gradient.

        Raises:
            ValueError: the number of placeholders is not the number of merged patches.
        """
        embeds = self.get_input_embeddings()(input_ids)
        weight = self.vision_tower.patch_embed.proj.weight
        mask = input_ids == self.config.media_placeholder_token_id
        placeholders = int(mask.sum())
        if pixel_values is None or not grids:
            if placeholders:
                raise ValueError(
                    f"{placeholders} media placeholder tokens, but there is no image; "
                    "render prompt and images together"
                )
            size = self.config.vision_config.patch_size
            dummy = torch.zeros(4, 3, size, size, dtype=weight.dtype, device=embeds.device)
            features = self.multi_modal_projector(self.vision_tower(dummy, [(2, 2)]))
            return embeds + 0.0 * features.sum()
        features = self.multi_modal_projector(
            self.vision_tower(pixel_values.to(embeds.device, weight.dtype), grids)
        )
        if order is not None:
            by_image = features.split([h * w // 4 for h, w in grids])
            features = torch.cat([by_image[image] for image in order])
        if placeholders != len(features):
            raise ValueError(
                f"{placeholders} media placeholder tokens, but the images have "
                f"{len(features)} merged patches; render prompt and images together"
            )
        return embeds.masked_scatter(mask[..., None], features.to(embeds.dtype))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_hws: torch.Tensor | Sequence | None = None,
        labels: torch.Tensor | None = None,
        row: PackedRow | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> MoeCausalLMOutputWithPast:
        """transformers' usual forward; input_ids [B, T], pixel_values [sum(h * w), 3, 14, 14],
        image_grid_hws [images, 2].

        With a packed `row` instead, the result has a loss but no logits: minus the log-probability
        of the tokens at its positions, their mean or their sum over `num_items_in_batch`.
        """
        if row is not None:
            count = kwargs.get("num_items_in_batch")
            logprobs, _ = self._token_logprobs(row.to(self.device), with_entropy=False)
            loss = -logprobs.sum() / (max(len(logprobs), 1) if count is None else count)
            return MoeCausalLMOutputWithPast(loss=loss)  # pyright: ignore[reportArgumentType]
        grids = as_grids(image_grid_hws)
        if inputs_embeds is None:
            assert input_ids is not None
            # Generation passes the pictures along at every step; they belong to the first.
            first = past_key_values is None or past_key_values.get_seq_length() == 0
            mask = input_ids == self.config.media_placeholder_token_id
            if (first and pixel_values is not None) or bool(mask.any()):
                inputs_embeds = self.embed(input_ids, pixel_values, grids)
            else:
                inputs_embeds = self.get_input_embeddings()(input_ids)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def packed_hidden(self, row: PackedRow) -> torch.Tensor:
        """Final hidden states [T, hidden] of a packed row; no sequence sees another but the one
        that it continues."""
        hidden = self.embed(row.input_ids, row.pixel_values, row.grids, row.image_order)[None]
        layout = SegmentLayout(row.lengths, hidden.device, causal=True, prefixes=row.prefixes)
        positions = row.places_in_text().to(hidden.device)[None]
        decoder = self.language_model.model
        rotary = decoder.rotary_emb(hidden, positions)
        for layer in decoder.layers:
            hidden = layer(
                hidden, position_embeddings=rotary, position_ids=positions, layout=layout
            )
        return decoder.norm(hidden)[0]

    def token_logprobs(
        self, row: PackedRow, *, with_entropy: bool = True, temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities [R], in nats and float32, of the tokens at the row's positions, each
        given what stands before it in its own sequence; and the entropies [R] of the whole
        distributions there, which have no gradient ([0] where they are not wanted). Both are of the
        policy whose logits are divided by `temperature`."""
        # FSDP2 wraps this method like `forward`, which must not pass through a second wrap.
        return self._token_logprobs(row, with_entropy, temperature)

    def _token_logprobs(
        self, row: PackedRow, with_entropy: bool, temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.packed_hidden(row)[row.positions - 1]
        targets = row.input_ids[row.positions]
        weight = self.language_model.lm_head.weight
        return token_logprobs(
            hidden, weight, targets, with_entropy=with_entropy, temperature=temperature
        )

    def set_trainable(self, freeze: Sequence[str]) -> None:
        """Freeze parts by name: vision_tower, projector, decoder, router. The router's
        correction bias is never trained by gradient, and always used.

        Raises:
            ValueError: nothing would be left to train.
        """
        for name, parameter in self.named_parameters():
            part = name.split(".")[0]
            router = name.endswith("mlp.gate.weight")
            frozen = (
                (part == "vision_tower" and "vision_tower" in freeze)
                or (part == "multi_modal_projector" and "projector" in freeze)
                or (part == "language_model" and "decoder" in freeze)
                or (router and "router" in freeze)
            )
            parameter.requires_grad_(not frozen)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError("model.freeze leaves nothing to train; take a part out of it")


def as_grids(image_grid_hws: torch.Tensor | Sequence | None) -> list[tuple[int, int]] | None:
    """[(rows, columns), ...] from a tensor [images, 2] or a sequence of pairs."""
    if image_grid_hws is None:
        return None
    pairs = image_grid_hws.tolist() if torch.is_tensor(image_grid_hws) else image_grid_hws
    return [(int(h), int(w)) for h, w in pairs]
