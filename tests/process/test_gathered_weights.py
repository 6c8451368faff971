import ranks
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from thinking_rl.learner.build import LearnerSettings, build_model, join
from thinking_rl.model.weights import CheckpointReader, full_tensors


def gathered(rank, world_size, settings, rendezvous):
    """dtypes that were gathered, and the weights that came of it."""
    device = join(settings, rank, world_size, rendezvous)
    model = build_model(settings, world_size, device)
    seen, gather = set(), DTensor.full_tensor
    DTensor.full_tensor = lambda self: seen.add(self.dtype) or gather(self)  # pyright: ignore[reportAttributeAccessIssue]
    weights = {n: t.float().numpy() for n, t in full_tensors(model, torch.bfloat16)}
    kept = {p.dtype for p in model.parameters()}
    dist.destroy_process_group()
    return seen, kept, weights


def test_weights_are_cast_before_they_travel(tiny_checkpoint, tmp_path):
    settings = LearnerSettings(str(tiny_checkpoint), learning_rate=0.0, tau=0.0, timeout_s=60)
    reader = CheckpointReader(tiny_checkpoint)
    for seen, kept, weights in ranks.run(gathered, 2, settings, f"file://{tmp_path}/meet"):
        assert seen == {torch.bfloat16}
        assert kept == {torch.float32}
        assert weights.keys() == reader.names()
        for name, value in weights.items():
            exact = reader.read(name)
            wanted = exact if name.endswith("correction_bias") else exact.bfloat16()
            assert (value == wanted.float().numpy()).all(), name
