"""Muon on plain tensors, and which parameters it is given."""

from __future__ import annotations

import pytest
import torch

from thinking_rl.learner.build import LearnerSettings
from thinking_rl.learner.optimizers import Muon, make_optimizers, orthogonal
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.tiny import TEXT, VISION, random_model

RATE = 1e-2


def small_model() -> KimiVLForConditionalGeneration:
    text = TEXT | {"vocab_size": 300, "pad_token_id": 0}
    config = KimiVLConfig.from_dict({"text_config": text, "vision_config": VISION})
    return random_model(config, seed=0)


def parameter(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(*shape))


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_matrix_is_stepped_on_as_torch_does(shape: tuple[int, int], decay: float) -> None:
    torch.manual_seed(0)
    ours = parameter(*shape)
    theirs = torch.nn.Parameter(ours.detach().clone())
    muon = Muon([("weight", ours)], RATE, decay)
    reference = torch.optim.Muon(
        [theirs], lr=RATE, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        ours.grad = torch.randn(*shape)
        theirs.grad = ours.grad.clone()
        muon.step()
        reference.step()
        # Both round to bfloat16 on the way: another order may show in the last of its digits.
        assert (ours - theirs).square().mean().sqrt() < 0.01 * RATE


def test_experts_are_stacks_of_matrices() -> None:
    """Each expert as if it were alone; gate and up, which share a tensor, apart."""
    torch.manual_seed(0)
    experts, inner, hidden = 3, 8, 16
    stack, down = parameter(experts, 2 * inner, hidden), parameter(experts, hidden, inner)
    names = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    stack.grad, down.grad = torch.randn_like(stack), torch.randn_like(down)
    alone = [parameter(inner, hidden) for _ in range(2 * experts)]
    for number, one in enumerate(alone):
        expert, half = divmod(number, 2)
        rows = slice(half * inner, (half + 1) * inner)
        one.data, one.grad = stack.data[expert, rows].clone(), stack.grad[expert, rows].clone()
    Muon([(names[0], stack), (names[1], down)], RATE, 0.0).step()
    Muon([("weight", one) for one in alone], RATE, 0.0).step()
    together = torch.stack([one.data for one in alone]).view_as(stack)
    torch.testing.assert_close(stack.data, together, atol=0.01 * RATE, rtol=0)


def test_singular_values_are_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(5, 12, 30)).float())
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_an_update_is_as_large_as_one_of_adamw() -> None:
    """Root mean square of 0.2 learning rates, as Moonlight measured of AdamW."""
    torch.manual_seed(0)
    for shape in [(32, 32), (16, 64), (64, 16)]:
        one = parameter(*shape)
        before, one.grad = one.detach().clone(), torch.randn(*shape)
        Muon([("weight", one)], RATE, 0.0).step()
        moved = (one - before).square().mean().sqrt().item() / RATE
        assert moved == pytest.approx(0.2, rel=0.25)


def test_muon_gets_hidden_matrices_alone() -> None:
    model = small_model()
    settings = LearnerSettings("", learning_rate=RATE, tau=0.0, optimizer="muon")
    adamw, muon = make_optimizers(model, settings)
    names = {parameter: name for name, parameter in model.named_parameters()}
    given = {names[p] for group in muon.param_groups for p in group["params"]}
    rest = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert given | rest == set(names.values())
    assert not given & rest
    assert any(name.endswith("mlp.experts.gate_up_proj") for name in given)
    assert any(name.endswith("mlp.gate.weight") for name in given)
    assert any(name.startswith("vision_tower") for name in given)
    odd = {name for name in rest if model.get_parameter(name).ndim > 1}
    assert odd == {
        "language_model.model.embed_tokens.weight",
        "language_model.lm_head.weight",
        "vision_tower.patch_embed.proj.weight",
        "vision_tower.patch_embed.pos_emb.weight",
    }
    assert all(model.get_parameter(name).ndim > 1 for name in given)


def test_adamw_gets_everything_by_default() -> None:
    model = small_model()
    [adamw] = make_optimizers(model, LearnerSettings("", learning_rate=RATE, tau=0.0))
    assert isinstance(adamw, torch.optim.AdamW)
    assert len(adamw.param_groups[0]["params"]) == len(list(model.parameters()))
