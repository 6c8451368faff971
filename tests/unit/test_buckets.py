import torch

from thinking_rl.model.buckets import buckets, make_bucket

TENSORS = [
    ("a", torch.randn(3, 5)),
    ("b", torch.randn(7).bfloat16()),
    ("empty", torch.empty(0, 4)),
    ("scalar", torch.tensor(2, dtype=torch.int64)),
    ("view", torch.randn(4, 6).T),
]


def check(back) -> None:
    """What came out is what was put in."""
    assert [name for name, _ in back] == [name for name, _ in TENSORS]
    for (_, sent), (_, got) in zip(TENSORS, back, strict=True):
        assert got.dtype == sent.dtype
        assert torch.equal(got, sent)


def test_a_bucket_gives_back_what_was_put_in() -> None:
    check(make_bucket(TENSORS).tensors())


def test_buckets_keep_to_their_limit() -> None:
    made = list(buckets(iter(TENSORS), limit_bytes=76))  # "a" has 60 bytes, "b" 14, "view" 96
    names = [[name for name, _ in bucket.tensors()] for bucket in made]
    assert names == [["a", "b", "empty"], ["scalar"], ["view"]]
    check([tensor for bucket in made for tensor in bucket.tensors()])
    assert list(buckets([], limit_bytes=76)) == []
