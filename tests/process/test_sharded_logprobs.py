import pytest
import ranks
import torch
import torch.distributed as dist
from conversations import IMAGES, assorted, make
from torch.distributed.tensor import DTensor

from thinking_rl.learner.build import LearnerSettings, build_model, join
from thinking_rl.learner.packing import pack_row
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.weights import load_released

HEAD = "language_model.lm_head.weight"


def rows(config):
    """Two rows a rank; the second of each is short, the last has no token in the loss."""
    conversations = assorted(config)
    short = [make(config, 7, 9), make(config, 8, 11)]
    return [[conversations[:2], [short[0]]], [conversations[2:], []]]


def sharded(rank, world_size, settings, rendezvous):
    """Gradients of the sum of this rank's log-probs, over two backward passes."""
    device = join(settings, rank, world_size, rendezvous)
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    model = build_model(settings, world_size, device)
    for row in rows(config)[rank]:
        values, entropy = model.token_logprobs(pack_row(row).packed(IMAGES, device))
        assert entropy.shape == values.shape
        (values.sum() * world_size).backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        assert isinstance(parameter.grad, DTensor)
        gradients[name] = parameter.grad.full_tensor().numpy()
    dist.destroy_process_group()
    return gradients


@pytest.fixture(scope="module")
def plain(tiny_checkpoint):
    """The same without sharding, in one backward pass, from stored logits."""
    config = KimiVLConfig.from_pretrained(tiny_checkpoint)
    model = KimiVLForConditionalGeneration(config)
    load_released(model, tiny_checkpoint)
    total = torch.zeros(())
    for row in [row for share in rows(config) for row in share if row]:
        packed = pack_row(row).packed(IMAGES, "cpu")
        logits = model.language_model.lm_head(model.packed_hidden(packed)[packed.positions - 1])
        targets = packed.input_ids[packed.positions, None]
        total = total + logits.log_softmax(-1).gather(1, targets).sum()
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(total, list(parameters.values()), materialize_grads=True)
    return {name: one.numpy() for name, one in zip(parameters, gradients, strict=True)}


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_gradients_reach_the_shards(tiny_checkpoint, plain, tmp_path, dtype, within):
    settings = LearnerSettings(
        str(tiny_checkpoint), learning_rate=0.0, tau=0.0, dtype=dtype, timeout_s=60
    )
    measured = ranks.run(sharded, 2, settings, f"file://{tmp_path}/meet")
    for name, expected in plain.items():
        of_rank = [gradients[name] for gradients in measured]
        assert (of_rank[0] == of_rank[1]).all()
        if dtype == "float32" or name == HEAD:
            error = ((of_rank[0] - expected) ** 2).sum() ** 0.5 / (expected**2).sum() ** 0.5
            assert error < within, name
