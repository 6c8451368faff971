import torch

from rollouts.pool import make_bucket


def test_a_bucket_gives_back_what_was_put_in() -> None:
    tensors = [
        ("a", torch.randn(3, 5)),
        ("b", torch.randn(7).bfloat16()),
        ("empty", torch.empty(0, 4)),
        ("scalar", torch.tensor(2, dtype=torch.int64)),
        ("view", torch.randn(4, 6).T),
    ]
    back = make_bucket(tensors).tensors()
    assert [name for name, _ in back] == [name for name, _ in tensors]
    for (_, sent), (_, got) in zip(tensors, back, strict=True):
        assert got.dtype == sent.dtype
        assert torch.equal(got, sent)
