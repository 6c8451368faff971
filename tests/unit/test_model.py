import json
from dataclasses import replace

import pytest
import torch
from conversations import IMAGES, LARGE, SHARED, SMALL, assorted, by_hash, group, make, picture
from torch import nn
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from thinking_rl.learner.packing import pack_row
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.kernels import logprobs as kernel
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.tiny import random_model
from thinking_rl.model.weights import load_released, model_state, released_names
from thinking_rl.types import Conversation

RELEASED_PARAMETERS = 16_407_656_048
"""As the released model's module tree reports, with the routers' correction biases."""


@pytest.fixture(scope="module")
def config(tiny_checkpoint):
    return KimiVLConfig.from_pretrained(tiny_checkpoint)


@pytest.fixture
def model(config):
    """Random everywhere, norms too, with scores far enough apart that rounding picks no expert."""
    model = random_model(config, seed=3)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if name.endswith("gate.weight"):
            nn.init.normal_(parameter, std=0.5, generator=generator)
        elif parameter.dim() == 1:
            nn.init.normal_(parameter, mean=1.0, std=0.2, generator=generator)
        elif name.endswith("lm_head.weight"):
            nn.init.normal_(parameter, std=0.2, generator=generator)
    return model


def packed(conversations, images=IMAGES):
    return pack_row(conversations).packed(images, "cpu")


def logprobs(model, conversations, images=IMAGES):
    row = packed(conversations, images)
    values, entropy = model.token_logprobs(row)
    assert entropy.shape == values.shape == row.positions.shape
    assert values.dtype == torch.float32
    return values


def expected_released_names():
    """The tensors of the released checkpoints, from its description."""
    names = ["language_model.model.embed_tokens.weight", "language_model.lm_head.weight"]
    names += ["language_model.model.norm.weight"]
    for layer in range(27):
        prefix = f"language_model.model.layers.{layer}"
        names += [f"{prefix}.{norm}_layernorm.weight" for norm in ("input", "post_attention")]
        attention = ("q_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj")
        names += [f"{prefix}.self_attn.{part}.weight" for part in attention]
        mlps = ["mlp"]
        if layer:
            names += [f"{prefix}.mlp.gate.weight", f"{prefix}.mlp.gate.e_score_correction_bias"]
            mlps = [f"mlp.experts.{expert}" for expert in range(64)] + ["mlp.shared_experts"]
        kinds = ("gate_proj", "up_proj", "down_proj")
        names += [f"{prefix}.{mlp}.{kind}.weight" for mlp in mlps for kind in kinds]
    vision = ["patch_embed.proj.weight", "patch_embed.proj.bias", "patch_embed.pos_emb.weight"]
    blocks = [f"encoder.blocks.{block}" for block in range(27)]
    parts = ("norm0", "norm1", "wqkv", "wo", "mlp.fc0", "mlp.fc1")
    modules = [f"{block}.{part}" for block in blocks for part in parts]
    modules.append("encoder.final_layernorm")
    vision += [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    seen = [f"vision_tower.{name}" for name in vision]
    for module in ("pre_norm", "linear_1", "linear_2"):
        seen += [f"multi_modal_projector.{module}.{kind}" for kind in ("weight", "bias")]
    assert len(seen) == 335
    return names + seen


def test_released_sizes_and_names():
    with torch.device("meta"):
        model = KimiVLForConditionalGeneration(KimiVLConfig())
    state = model_state(model)
    assert sum(tensor.numel() for tensor in state.values()) == RELEASED_PARAMETERS
    names = [part for name, tensor in state.items() for part in released_names(name, tensor.shape)]
    assert sorted(names) == sorted(expected_released_names())
    assert {
        name for name, tensor in state.items() if name not in dict(model.named_parameters())
    } == {
        f"language_model.model.layers.{layer}.mlp.gate.e_score_correction_bias"
        for layer in range(1, 27)
    }


def test_norm_epsilons():
    with torch.device("meta"):
        model = KimiVLForConditionalGeneration(KimiVLConfig())
    modules = dict(model.named_modules())
    vision = {module.eps for module in modules.values() if isinstance(module, nn.LayerNorm)}
    assert vision == {1e-5}
    text = {n: m.variance_epsilon for n, m in modules.items() if hasattr(m, "variance_epsilon")}
    # As in the reference code, this one norm keeps its class's default.
    assert {eps for name, eps in text.items() if "kv_a_" in name} == {1e-6}
    assert {eps for name, eps in text.items() if "kv_a_" not in name} == {1e-5}


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 800000.0, "rope_scaling": None},
        {"rope_theta": 800000.0},
        {"rope_parameters": {"rope_theta": 800000.0, "rope_type": "default"}},
    ],
)
def test_rotary_settings_in_every_spelling(rope):
    text = KimiVLConfig(text_config=rope).text_config
    assert text.rope_parameters == {"rope_theta": 800000.0, "rope_type": "default"}
    assert text.rope_interleave
    again = KimiVLConfig.from_dict(json.loads(KimiVLConfig(text_config=rope).to_json_string()))
    assert again.text_config.to_dict() == text.to_dict()


def test_decoder_equals_transformers_one_sequence_at_a_time(model, config):
    sequences = [make(config, seed, length) for seed, length in enumerate((5, 40, 12, 38))]
    settings = json.loads(config.text_config.to_json_string())
    reference = DeepseekV3ForCausalLM._from_config(
        DeepseekV3Config.from_dict(settings),
        attn_implementation="eager",
        experts_implementation="eager",
    )
    assert reference.config._attn_implementation == "eager"
    reference.load_state_dict(model.language_model.state_dict())
    expected = []
    for sequence in sequences:
        ids = torch.tensor(sequence.token_ids)
        with torch.no_grad():
            table = reference(ids[None]).logits[0].log_softmax(-1)
        own = torch.tensor(sequence.loss_mask).nonzero().flatten()
        expected.append(table[own - 1, ids[own]])
    measured = logprobs(model, sequences)
    assert measured.std() > 0.5
    assert (measured - torch.cat(expected)).abs().max() < 2e-5


@pytest.mark.parametrize("shares_pictures", [True, False])
def test_packed_equals_alone(model, config, shares_pictures):
    conversations = assorted(config)
    row = packed(conversations)
    assert row.image_order == (0, 0, 1, 2)
    if not shares_pictures:
        pictures = [IMAGES[key] for one in conversations for key in one.image_hashes]
        row = replace(
            row,
            pixel_values=torch.cat([p.pixel_values for p in pictures]),
            grids=tuple(p.grid_hw for p in pictures),
            image_order=(0, 1, 2, 3),
        )
    together, _ = model.token_logprobs(row)
    alone = torch.cat([logprobs(model, [one]) for one in conversations])
    assert (together - alone).abs().max() < 2e-5


def test_prompt_once_equals_prompts_repeated(model, config):
    """Values, and gradients of every parameter, with and without pictures in the prompt."""
    conversations = [
        *group(config, 1, 20, (7, 30, 12), [SHARED, SMALL]),
        *group(config, 2, 9, (5, 6)),
        *group(config, 3, 2, (4,), [LARGE]),
        *group(config, 4, 15, (3, 3, 3, 3), [LARGE]),
    ]
    results = []
    for once in (True, False):
        row = pack_row(conversations, prompt_once=once)
        values, entropy = model.token_logprobs(row.packed(IMAGES, "cpu"))
        factor = row.advantages[row.seq_ids]
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad((values * factor).sum(), parameters)
        results.append((len(row.input_ids), values.detach(), entropy, gradients))
    (tokens, values, entropy, gradients), (repeated, expected, spread, whole) = results
    saved = [(len(make(config, 1, 20, [SHARED, SMALL]).token_ids) - 1) * 2, 9, 0]
    saved.append((len(make(config, 4, 15, [LARGE]).token_ids) - 1) * 3)
    assert repeated - tokens == sum(saved)
    assert (values - expected).norm() < 1e-5 * expected.norm()
    assert (entropy - spread).norm() < 1e-5 * spread.norm()
    for (name, _), mine, theirs in zip(model.named_parameters(), gradients, whole, strict=True):
        assert (mine - theirs).norm() < 1e-5 * theirs.norm(), name


def test_pictures_matter_and_stay_in_their_places(model, config):
    one, two = picture(1, (4, 6)), picture(2, (4, 6))
    values = [
        logprobs(model, [make(config, 1, 9, pictures)], by_hash(one, two))
        for pictures in ([one, two], [two, one], [one, one])
    ]
    for a in range(3):
        for b in range(a):
            assert (values[a] - values[b]).abs().max() > 1e-4


def test_forward_agrees_with_the_packed_path(model, config):
    conversation = assorted(config)[3]
    row = packed([conversation])
    with torch.no_grad():
        logits = model(
            row.input_ids[None],
            pixel_values=row.pixel_values,
            image_grid_hws=torch.tensor(row.grids),
        ).logits[0]
        values, entropy = model.token_logprobs(row)
        labels = torch.full_like(row.input_ids, -100)
        labels[row.positions] = row.input_ids[row.positions]
        packed_loss = model(row=row).loss
        loss = model(
            row.input_ids[None],
            labels=labels[None],
            pixel_values=row.pixel_values,
            image_grid_hws=row.grids,
        ).loss
    table = logits[row.positions - 1].log_softmax(-1)
    torch.testing.assert_close(
        values, table.gather(1, row.input_ids[row.positions, None])[:, 0], atol=2e-5, rtol=0
    )
    torch.testing.assert_close(entropy, -(table.exp() * table).sum(-1), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(packed_loss, loss, atol=1e-5, rtol=1e-5)


def test_log_probs_do_not_depend_on_the_blocks(model, config, monkeypatch):
    whole = logprobs(model, assorted(config))
    whole.sum().backward()
    gradient = model.language_model.lm_head.weight.grad.clone()
    model.zero_grad()
    monkeypatch.setattr(kernel, "TOKENS", 7)
    monkeypatch.setattr(kernel, "VOCABULARY", 100)
    cut = logprobs(model, assorted(config))
    cut.sum().backward()
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        model.language_model.lm_head.weight.grad, gradient, atol=1e-4, rtol=1e-4
    )


def test_activation_checkpointing_recomputes_and_changes_nothing(model, config):
    calls = []
    for block in (model.vision_tower.encoder.blocks[0], model.language_model.model.layers[1]):
        norm = getattr(block, "input_layernorm", None) or block.norm0
        norm.register_forward_hook(lambda *_: calls.append(1))
    gradients = []
    for checkpointing, expected_calls in ((False, 2), (True, 4)):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        calls.clear()
        model.zero_grad()
        logprobs(model, assorted(config)).sum().backward()
        assert len(calls) == expected_calls
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("texts", [1, 2, 0], ids=["one", "two", "filler"])
def test_text_only_rows_give_every_parameter_a_gradient(model, config, texts):
    row = [make(config, seed, 9) for seed in range(texts)]
    values = logprobs(model, row)
    values.sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []
    sizes = {name: p.grad.abs().sum().item() for name, p in model.named_parameters()}
    seen = {name for name, size in sizes.items() if size > 0}
    assert not any(name.startswith(("vision_tower", "multi_modal")) for name in seen)
    assert bool(seen) == bool(texts)


def test_the_unseen_expert_has_a_zero_gradient(model, config):
    for name, buffer in model.named_buffers():
        if name.endswith("correction_bias"):
            buffer[5] = -10.0
    logprobs(model, assorted(config)).sum().backward()
    for layer in model.language_model.model.layers[1:]:
        for weight in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            sizes = weight.grad.abs().sum((1, 2))
            assert sizes[5] == 0
            assert (sizes > 0).sum() >= 4


@pytest.mark.parametrize("training", [True, False])
def test_correction_bias_chooses_experts_but_does_not_weigh_them(model, config, training):
    model.train(training)
    gate = model.language_model.model.layers[1].mlp.gate
    hidden = torch.randn(50, config.text_config.hidden_size)
    before = logprobs(model, assorted(config))
    _, weights, chosen = gate(hidden)
    gate.e_score_correction_bias += torch.tensor([9.0, -9.0] * 4)
    _, new_weights, new_chosen = gate(hidden)
    assert (chosen % 2 == 1).any()
    assert (new_chosen % 2 == 0).all()
    assert (logprobs(model, assorted(config)) - before).abs().max() > 1e-3
    scores = (hidden @ gate.weight.T).sigmoid()
    for picked, weight in ((chosen, weights), (new_chosen, new_weights)):
        raw = scores.gather(1, picked)
        expected = raw / raw.sum(1, keepdim=True) * 2.446
        torch.testing.assert_close(weight, expected, atol=1e-5, rtol=1e-5)


def test_router_stays_in_float32_in_a_bfloat16_model(model):
    """Scores that bfloat16 cannot tell apart still choose rightly."""
    gate = model.bfloat16().language_model.model.layers[1].mlp.gate
    gate.e_score_correction_bias = gate.e_score_correction_bias.float()
    gate.e_score_correction_bias.copy_(torch.arange(8) * 1e-5)
    gate.weight.data.zero_()
    logits, weights, chosen = gate(torch.randn(3, 128, dtype=torch.bfloat16))
    assert logits.dtype == weights.dtype == torch.float32
    assert chosen.sort().values.tolist() == [[6, 7]] * 3


PARTS = {
    "vision_tower": lambda name: name.startswith("vision_tower."),
    "projector": lambda name: name.startswith("multi_modal_projector."),
    "decoder": lambda name: name.startswith("language_model."),
    "router": lambda name: name.endswith(".mlp.gate.weight"),
}


@pytest.mark.parametrize("part", PARTS)
def test_freezing(model, config, part):
    model.set_trainable([part])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if PARTS[part](name)}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    logprobs(model, assorted(config)).sum().backward()
    optimizer.step()
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    biases = {name for name in before if name.endswith("correction_bias")}
    assert len(biases) == 2
    assert changed == set(before) - frozen - biases
    model.set_trainable([])
    assert all(p.requires_grad for p in model.parameters())


def test_nothing_left_to_train_is_refused(model):
    with pytest.raises(ValueError, match=r"model\.freeze"):
        model.set_trainable(["vision_tower", "projector", "decoder"])


def test_placeholders_must_match_the_pictures(model, config):
    ids = torch.full((1, 5), config.media_placeholder_token_id)
    with pytest.raises(ValueError, match="5 media placeholder tokens, but the images have 6"):
        model(ids, pixel_values=picture(1, (4, 6)).pixel_values, image_grid_hws=[(4, 6)])
    with pytest.raises(ValueError, match="5 media placeholder tokens, but there is no image"):
        model(ids)
    with pytest.raises(ValueError, match="0 media placeholder tokens, but the images have 6"):
        model(ids * 0, pixel_values=picture(1, (4, 6)).pixel_values, image_grid_hws=[(4, 6)])


@pytest.mark.parametrize(
    ("tokens", "pictures", "message"),
    [
        (5, 1, "5 media placeholder tokens, but the images have 6"),
        (7, 1, "7 media placeholder tokens, but the images have 6"),
        (6, 0, "6 media placeholder tokens, but there is no image"),
        (6, 2, "6 media placeholder tokens, but the images have 12"),
    ],
)
def test_placeholders_of_a_row_must_match_its_pictures(model, config, tokens, pictures, message):
    ids = (1, *[config.media_placeholder_token_id] * tokens, 2)
    mask = (False,) * (len(ids) - 1) + (True,)
    wrong = Conversation(ids, mask, (SHARED.hash,) * pictures)
    with pytest.raises(ValueError, match=message):
        model.token_logprobs(packed([wrong]))


def test_load_released_gives_the_random_model_back(tiny_checkpoint, config):
    expected = random_model(config, seed=0).state_dict()
    model = random_model(config, seed=1)
    load_released(model, tiny_checkpoint)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
