from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from conversations import IMAGES, assorted

from thinking_rl.learner.build import LearnerSettings
from thinking_rl.learner.packing import pack_row
from thinking_rl.learner.rank import Rank
from thinking_rl.model.configuration import KimiVLConfig


def step(rank, world_size, settings, rendezvous):
    """Metrics of a step whose every token goes to the experts 2 and 5 of the first routed layer,
    and the row's tokens go evenly to all in the second."""
    config = KimiVLConfig.from_pretrained(settings.checkpoint)
    learner = Rank(settings, rank, world_size, rendezvous)
    gates: list[Any] = [m for n, m in learner.model.named_modules() if n.endswith("mlp.gate")]
    one, two = gates
    one.e_score_correction_bias.zero_()
    one.e_score_correction_bias[[2, 5]] = 7.0
    experts = two.num_experts

    def evenly(module, inputs, output):
        places = torch.arange(output[2].numel()) % experts
        return output[0], output[1], places.view_as(output[2])

    two.register_forward_hook(evenly, prepend=True)
    conversations = assorted(config)[3 * rank : 3 * rank + 2]
    learner.begin_iteration([[pack_row(conversations)]], IMAGES)
    metrics = [learner.step(0, 5, 50) for _ in range(2)]
    dist.destroy_process_group()
    return metrics, experts


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_busiest_expert_and_the_largest_bias(tiny_checkpoint, tmp_path, world_size):
    settings = LearnerSettings(str(tiny_checkpoint), learning_rate=0.0, tau=0.0, timeout_s=60)
    for metrics, experts in ranks.run(step, world_size, settings, f"file://{tmp_path}/meet"):
        for one in metrics:  # a second step starts counting afresh
            # Two experts of the first layer have half of its tokens each.
            assert one["expert_load"] == pytest.approx((experts / 2 + 1) / 2, rel=0.03)
            assert one["expert_bias"] == 7.0
