import pytest
import ranks
import torch.distributed as dist
from conversations import IMAGES, LARGE, SHARED, SMALL, group
from steps import apart
from torch.distributed.tensor import DTensor

from thinking_rl.learner.build import LearnerSettings
from thinking_rl.learner.cost import Cost
from thinking_rl.learner.group import deal
from thinking_rl.learner.packing import pack_row
from thinking_rl.learner.rank import Rank
from thinking_rl.model.configuration import KimiVLConfig

RATE = 1e-3


def minibatches(config):
    """Two optimizer steps of groups, some with pictures; the second has a reference pass."""
    return [
        group(config, 1, 20, (7, 30, 12, 9), [SHARED, SMALL]) + group(config, 2, 9, (5, 6)),
        group(config, 3, 15, (8, 3, 3, 14), [LARGE]) + group(config, 4, 6, (4,)),
    ]


def train(rank, world_size, settings, rendezvous, prompt_once):
    """One iteration: both steps' metrics, tokens of this rank's rows, weights afterwards."""
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    batches = minibatches(config)
    rows = []
    for batch in batches:
        dealt = deal(batch, 150, world_size, Cost(1000.0), prompt_once=prompt_once)[rank]
        chosen = [[batch[i] for i in row] for row in dealt]
        rows.append([pack_row(row, prompt_once=prompt_once) for row in chosen])
    learner.begin_iteration(rows, IMAGES)
    steps = []
    for index, batch in enumerate(batches):
        tokens = sum(sum(one.loss_mask) for one in batch)
        steps.append(learner.step(index, len(batch), tokens))
    state = {
        name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().numpy()
        for name, t in learner.model.state_dict().items()
    }
    dist.destroy_process_group()
    return steps, sum(len(row.input_ids) for batch in rows for row in batch), state


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_step_is_the_same_and_has_fewer_tokens(tiny_checkpoint, tmp_path, world_size):
    settings = LearnerSettings(str(tiny_checkpoint), learning_rate=RATE, tau=0.3, timeout_s=60)
    once, repeated = (
        ranks.run(train, world_size, settings, f"file://{tmp_path}/{name}", name == "once")
        for name in ("once", "repeated")
    )
    assert sum(answer[1] for answer in once) < 0.75 * sum(answer[1] for answer in repeated)
    for (steps, _, state), (expected, _, weights) in zip(once, repeated, strict=True):
        for mine, theirs in zip(steps, expected, strict=True):
            assert mine.keys() == theirs.keys()
            for name in ("loss", "grad_norm", "entropy"):
                assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
        difference, name = apart(state, weights)
        assert difference < 0.002 * RATE, name
