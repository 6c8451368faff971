import math
from dataclasses import replace

import pytest
import ranks
import torch
import torch.distributed as dist
from conversations import IMAGES, assorted, make
from steps import NATS, OF_NORM, apart
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from thinking_rl.algorithm.loss import mirror_descent_loss
from thinking_rl.learner.build import LearnerSettings
from thinking_rl.learner.packing import pack_row
from thinking_rl.learner.rank import Rank
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.weights import CheckpointReader, load_released

RATE = 1e-3
APART = 0.002 * RATE
"""For weights after two steps. Adam's second beta at 0.999 makes 0.008 of a step, a tau that is a
tenth off 0.03, a lost picture 1.4, a lost rank 1.4, a division by the rank's own count 0.9."""


@pytest.fixture(scope="module")
def settings(tiny_checkpoint):
    return LearnerSettings(str(tiny_checkpoint), learning_rate=RATE, tau=0.3, timeout_s=60)


@pytest.fixture(scope="module")
def config(tiny_checkpoint):
    return KimiVLConfig.from_pretrained(tiny_checkpoint)


def minibatches(config):
    """Two optimizer steps of rows of conversations; only the first rows have pictures."""
    a, b, c, d, e = assorted(config)
    f = make(config, 6, 17, advantage=-0.75)
    return [[[a, c, d], [b, e], [f]], [[c, d], [b, f]]]


def dealt(config, rank, world_size):
    """This rank's rows: every second one when there are two, the last a filler."""
    batches = []
    for rows in minibatches(config):
        rows = rows + [[] for _ in range(-len(rows) % world_size)]
        batches.append([pack_row(row) for row in rows[rank::world_size]])
    return batches


def counts(config, index):
    conversations = [one for row in minibatches(config)[index] for one in row]
    return len(conversations), sum(sum(one.loss_mask) for one in conversations)


def state(learner):
    """The whole model by our names, gathered."""
    return {
        name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone().numpy()
        for name, t in learner.model.state_dict().items()
    }


def iterate(learner, config, rank, world_size):
    """One iteration: both steps' metrics."""
    learner.begin_iteration(dealt(config, rank, world_size), IMAGES)
    return [learner.step(index, *counts(config, index)) for index in (0, 1)]


def two_steps(rank, world_size, settings, rendezvous, folder):
    """Log-probs, then an iteration, then a sharded checkpoint and an export."""
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    values = [v.numpy() for v in learner.scores(dealt(config, rank, world_size)[0], IMAGES)[0]]
    steps = iterate(learner, config, rank, world_size)
    after = state(learner)
    learner.save(folder / "sharded")
    learner.export(folder / "export")
    again = iterate(learner, config, rank, world_size)
    dist.destroy_process_group()
    return values, steps, after, again


def resume(rank, world_size, settings, rendezvous, folder):
    """Continue from a sharded checkpoint with an untouched learner."""
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    learner.load(folder / "sharded")
    loaded = state(learner)
    return loaded, iterate(learner, config, rank, world_size)


def address(folder, name):
    return f"file://{folder}/{name}"


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory):
    """The same two steps with one process and with two, the optimizer kept between them."""
    kept = replace(settings, reset_optimizer=False)
    results = {}
    for world_size in (1, 2):
        folder = tmp_path_factory.mktemp(f"world{world_size}")
        results[world_size] = (
            folder,
            ranks.run(two_steps, world_size, kept, address(folder, "meet"), folder),
        )
    return results


@pytest.fixture(scope="module")
def plain(settings, config):
    """The first two steps without sharding, packing or chunked references: autograd on the
    plain model, one conversation at a time."""
    model = KimiVLForConditionalGeneration(config)
    load_released(model, settings.checkpoint)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=settings.betas, weight_decay=0.0
    )

    def logprobs(one):
        return model.token_logprobs(pack_row([one]).packed(IMAGES, "cpu"))[0]

    batches = [[one for row in rows for one in row] for rows in minibatches(config)]
    with torch.no_grad():
        references = [[logprobs(one) for one in batch] for batch in batches]
    steps = []
    for batch, reference in zip(batches, references, strict=True):
        optimizer.zero_grad()
        total = 0.0
        for one, before in zip(batch, reference, strict=True):
            values = logprobs(one).double()
            ratio = (values - before).sum()
            loss = (-one.advantage * values.sum() + 0.3 / 2 * ratio**2) / len(batch)
            loss.backward()
            total += loss.item()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).double().norm().item()
        for gradient in gradients:
            gradient *= min(1.0, settings.max_grad_norm / norm)
        optimizer.step()
        steps.append({"loss": total, "grad_norm": norm})
    return steps, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("world_size", [1, 2])
def test_steps_equal_plain_autograd(runs, plain, world_size):
    steps, weights = plain
    _, answers = runs[world_size]
    for _, measured, after, _ in answers:
        for step, expected in zip(measured, steps, strict=True):
            assert step["loss"] == pytest.approx(expected["loss"], abs=NATS)
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=OF_NORM)
        difference, name = apart(after, weights)
        assert difference < APART, name


def test_two_processes_equal_one(runs):
    """Rank 1 has no picture in any row, and a filler as its last."""
    (_, [one]), (_, two) = runs[1], runs[2]
    for _, steps, after, again in two:
        for step, expected in zip(steps + again, one[1] + one[3], strict=True):
            assert step.keys() == expected.keys()
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=OF_NORM)
            for name in ("loss", "entropy", "kl", "log_ratio", "log_ratio_abs"):
                assert step[name] == pytest.approx(expected[name], abs=NATS), name
        difference, name = apart(after, one[2])
        assert difference < APART, name
    values = [two[0][0][0], two[1][0][0], two[0][0][1]]
    for measured, expected in zip(values, one[0], strict=True):
        assert abs(measured - expected).max() < NATS
    assert two[1][0][1].shape == (0,)


def test_everything_trains_but_the_correction_bias(runs, settings):
    reader = CheckpointReader(settings.checkpoint)
    _, answers = runs[2]
    for name, value in answers[0][2].items():
        before = reader.read_parameter(name, value.shape).numpy()
        if name.endswith("correction_bias"):
            assert (value == before).all(), name
        else:
            moved = abs(value - before).max()
            assert 0 < moved < 3 * RATE, name


def test_checkpoint_of_two_ranks_continues_on_one(runs, settings, tmp_path):
    folder, answers = runs[2]
    kept = replace(settings, reset_optimizer=False)
    [(loaded, steps)] = ranks.run(resume, 1, kept, address(tmp_path, "meet"), folder)
    _, _, after, again = answers[0]
    for name in after:
        assert (loaded[name] == after[name]).all(), name
    for step, expected in zip(steps, again, strict=True):
        assert step["loss"] == pytest.approx(expected["loss"], abs=NATS)
        assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=OF_NORM)


def test_export_holds_the_trained_weights(runs):
    for folder, answers in runs.values():
        reader = CheckpointReader(folder / "export")
        for name, value in answers[0][2].items():
            assert (reader.read_parameter(name, value.shape).numpy() == value).all(), name


def in_bfloat16(rank, world_size, settings, rendezvous):
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    router = learner.model.get_submodule("language_model.model.layers.1.mlp.gate")
    seen = []
    router.register_forward_hook(
        lambda module, given, output: seen.append(
            (given[0].dtype, module.weight.dtype, module.e_score_correction_bias.dtype)
        )
    )
    # torch's fused attention in bfloat16 goes by the processor, even where ATEN_CPU_CAPABILITY
    # has its kernels built for a lesser one, and then fails.
    with sdpa_kernel(SDPBackend.MATH):
        steps = iterate(learner, config, rank, world_size)
    masters = {p.dtype for p in learner.model.parameters()}
    gradients = {p.grad.dtype for p in learner.model.parameters() if p.grad is not None}
    sent = {name: tensor.dtype for name, tensor in learner.weights()}
    return steps, set(seen), masters, gradients, sent


def test_bfloat16_forward_keeps_float32_masters_and_routing(settings, runs, tmp_path):
    half = replace(settings, dtype="bfloat16", activation_checkpointing=True)
    answers = ranks.run(in_bfloat16, 2, half, address(tmp_path, "meet"))
    exact = runs[1][1][0][1]
    low, full = torch.bfloat16, torch.float32
    for steps, seen, masters, gradients, sent in answers:
        assert all(math.isfinite(value) for step in steps for value in step.values())
        assert steps[0]["grad_norm"] == pytest.approx(exact[0]["grad_norm"], rel=0.05)
        assert seen == {(low, low, full)}
        assert masters == gradients == {full}
        assert all((t == full) == name.endswith("correction_bias") for name, t in sent.items())


def frozen(rank, world_size, settings, rendezvous):
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    before = state(learner)
    iterate(learner, config, rank, world_size)
    return {name for name, value in state(learner).items() if (value != before[name]).any()}


def test_frozen_parts_stay_under_sharding(settings, tmp_path):
    few = replace(settings, freeze=("vision_tower", "router"))
    for changed in ranks.run(frozen, 2, few, address(tmp_path, "meet")):
        assert "multi_modal_projector.linear_1.weight" in changed
        assert "language_model.model.embed_tokens.weight" in changed
        assert "language_model.lm_head.weight" in changed
        assert not any(name.startswith("vision_tower") for name in changed)
        assert not any(".gate." in name for name in changed)


def not_finite(rank, world_size, settings, rendezvous):
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    before = state(learner)
    batches = dealt(config, rank, world_size)
    if rank == 0:
        advantages = batches[0][0].advantages.clone()
        advantages[0] = math.inf
        batches[0][0] = replace(batches[0][0], advantages=advantages)
    learner.begin_iteration(batches, IMAGES)
    norm = learner.step(0, *counts(config, 0))["grad_norm"]
    after = state(learner)
    same = all((after[name] == before[name]).all() for name in before)
    # The next step is none the worse for it.
    return norm, same, learner.step(1, *counts(config, 1))["grad_norm"]


def test_a_gradient_that_is_not_finite_is_not_applied(settings, tmp_path):
    for norm, same, later in ranks.run(not_finite, 2, settings, address(tmp_path, "meet")):
        assert not math.isfinite(norm)
        assert same
        assert math.isfinite(later)
        assert later > 0


def at_rates(rank, world_size, settings, rendezvous, config):
    """Largest change of any weight by a first step at a quarter of the settings' rate, and by one
    at none."""
    learner = Rank(settings, rank, world_size, rendezvous)
    learner.begin_iteration(dealt(config, rank, world_size), IMAGES)
    changes = []
    for rate in (RATE / 4, 0.0):
        before = state(learner)
        learner.step(0, *counts(config, 0), rate)
        after = state(learner)
        changes.append(max(abs(after[name] - before[name]).max() for name in before))
    return changes


def test_a_step_takes_the_rate_it_is_given(settings, config, tmp_path):
    [(quarter, none)] = ranks.run(at_rates, 1, settings, address(tmp_path, "meet"), config)
    assert quarter == pytest.approx(RATE / 4, rel=1e-3)  # the first step of Adam is its rate
    assert none == 0


def unusable(rank, world_size, settings, rendezvous):
    try:
        Rank(settings, rank, world_size, rendezvous)
    except ValueError as error:
        return str(error)


def test_a_checkpoint_that_is_not_there(settings, tmp_path):
    missing = replace(settings, checkpoint=str(tmp_path / "nowhere"))
    [said] = ranks.run(unusable, 1, missing, address(tmp_path, "meet"))
    assert "nowhere: no such checkpoint folder" in said


def save_to_a_file(rank, world_size, settings, rendezvous, folder):
    learner = Rank(settings, rank, world_size, rendezvous)
    (folder / "taken").write_text("")
    said = []
    for write in (learner.save, learner.export):
        try:
            write(folder / "taken" / "checkpoint")
        except OSError as error:
            said.append(str(error))
    return said


def test_a_checkpoint_that_cannot_be_written(settings, tmp_path):
    [said] = ranks.run(save_to_a_file, 1, settings, address(tmp_path, "meet"), tmp_path)
    assert len(said) == 2
    assert all("taken/checkpoint: could not write" in words for words in said)


def test_plain_reference_uses_the_same_loss():
    """The loss written out in `plain` is the library's."""
    values = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    before = torch.tensor([-1.5, -1.8], dtype=torch.float64)
    output = mirror_descent_loss(
        values, before, torch.tensor([0.5]), torch.zeros(2, dtype=torch.long), 1, 0.3
    )
    assert output.loss.item() == pytest.approx(0.5 * 3 + 0.15 * 0.3**2)
