import errno
import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from thinking_rl.model import weights
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.tiny import random_model
from thinking_rl.model.weights import (
    INDEX_FILE,
    CheckpointReader,
    full_tensors,
    load_released,
    released_names,
    released_tensors,
    save_released,
)

EXPERT = "language_model.model.layers.1.mlp.experts.3.up_proj.weight"
BIAS = "language_model.model.layers.1.mlp.gate.e_score_correction_bias"


@pytest.fixture(scope="module")
def config(tiny_checkpoint):
    return KimiVLConfig.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def tensors(tiny_checkpoint):
    """A complete set of released tensors."""
    reader = CheckpointReader(tiny_checkpoint)
    return {name: reader.read(name) for name in reader.names()}


@pytest.fixture(scope="module")
def empty(config):
    return random_model(config, seed=7)


def test_expert_tensors_are_cut_and_named_rightly():
    prefix = "language_model.model.layers.1.mlp.experts."
    fused = torch.arange(2 * 6 * 4).view(2, 6, 4)
    parts = dict(released_tensors(f"{prefix}gate_up_proj", fused))
    assert list(parts) == released_names(f"{prefix}gate_up_proj", fused.shape)
    assert torch.equal(parts[f"{prefix}1.gate_proj.weight"], fused[1, :3])
    assert torch.equal(parts[f"{prefix}1.up_proj.weight"], fused[1, 3:])
    assert all(part.untyped_storage().data_ptr() == fused.data_ptr() for part in parts.values())
    down = dict(released_tensors(f"{prefix}down_proj", fused))
    assert torch.equal(down[f"{prefix}0.down_proj.weight"], fused[0])
    assert len(down) == 2
    shared = "language_model.model.layers.1.mlp.shared_experts.down_proj.weight"
    assert released_names(shared, (4, 4)) == [shared]


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard_gib", [4.0, 0.001])
def test_round_trip(config, empty, tensors, tmp_path, dtype, shard_gib):
    model = random_model(config, seed=0)
    save_released(full_tensors(model, dtype), tmp_path, shard_gib=shard_gib)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([INDEX_FILE, *files])
    assert len(files) == 1 if shard_gib == 4.0 else len(files) > 4
    written = {}
    for file in files:
        part = load_file(tmp_path / file)
        assert len(part) == 1 or sum(t.nbytes for t in part.values()) <= shard_gib * 2**30
        assert all(index["weight_map"][name] == file for name in part)
        written |= part
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in written.values())
    assert written.keys() == tensors.keys()
    for name, tensor in written.items():
        kept = name.endswith("e_score_correction_bias")
        assert tensor.dtype == (torch.float32 if kept else dtype or torch.float32), name
        assert torch.equal(tensor, tensors[name].to(tensor.dtype)), name
    load_released(empty, tmp_path)
    for name, tensor in model.state_dict().items():
        exact = name.endswith("correction_bias") or dtype is None
        expected = tensor if exact else tensor.to(dtype).float()
        assert torch.equal(empty.state_dict()[name], expected), name


def test_a_single_file_and_rotary_keys_are_read(empty, tensors, tmp_path):
    rotary = {
        f"language_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(32)
        for layer in range(3)
    }
    save_file(tensors | rotary, tmp_path / "model.safetensors")
    load_released(empty, tmp_path)
    assert torch.equal(empty.state_dict()[BIAS], tensors[BIAS])
    before = empty.language_model.model.rotary_emb.inv_freq
    assert not torch.equal(before, torch.ones(32))


def without(tensors, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: without(t, EXPERT), [EXPERT, "complete"]),
        (lambda t: without(t, BIAS), [BIAS, "complete"]),
        (lambda t: t | {EXPERT: t[EXPERT].T.contiguous()[:5]}, [EXPERT, "(5,", "config.json"]),
        (lambda t: t | {BIAS: torch.zeros(9)}, [BIAS, "(9,)", "(8,)", "config.json"]),
        (
            lambda t: t | {f"model.extra.{i}": torch.zeros(1) for i in range(5)},
            ["5 tensor(s)", "model.extra.0", "config.json"],
        ),
        (
            lambda t: t | {EXPERT.replace(".3.", ".8."): t[EXPERT].clone()},
            ["1 tensor(s)", EXPERT.replace(".3.", ".8.")],
        ),
    ],
    ids=["expert missing", "bias missing", "expert shape", "bias shape", "extra", "ninth expert"],
)
def test_weights_that_do_not_fit_are_refused(empty, tensors, tmp_path, change, words):
    save_file(change(tensors), tmp_path / "model.safetensors")
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the words are checked)
        load_released(empty, tmp_path)
    for word in [str(tmp_path), *words]:
        assert word in str(refused.value)


def several_shards(tensors, folder):
    save_released(tensors.items(), folder, shard_gib=0.003)
    return sorted(folder.glob("*.safetensors"))


def damage_missing(shards):
    shards[1].unlink()
    return shards[1].name, "fetch"


def damage_cut(shards):
    os.truncate(shards[1], 1000)
    return shards[1].name, "fetch"


def damage_swapped(shards):
    shards[1].write_bytes(shards[0].read_bytes())
    return shards[1].name, "fetch"


def damage_index(shards):
    (shards[0].parent / INDEX_FILE).write_text('{"weight_map": ')
    return INDEX_FILE, "fetch"


def damage_index_content(shards):
    (shards[0].parent / INDEX_FILE).write_text("[]")
    return INDEX_FILE, "fetch"


def damage_everything(shards):
    for file in [*shards, shards[0].parent / INDEX_FILE]:
        file.unlink()
    return INDEX_FILE, "checkpoint folder"


def damage_single_file(shards):
    damage_everything(shards)
    (shards[0].parent / "model.safetensors").write_bytes(b"version https://git-lfs")
    return "model.safetensors", "fetch"


@pytest.mark.parametrize(
    "damage",
    [
        damage_missing,
        damage_cut,
        damage_swapped,
        damage_index,
        damage_index_content,
        damage_everything,
        damage_single_file,
    ],
)
def test_damaged_checkpoints_are_refused(empty, tensors, tmp_path, damage):
    shards = several_shards(tensors, tmp_path)
    assert len(shards) > 2
    words = damage(shards)
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the words are checked)
        load_released(empty, tmp_path)
    for word in (str(tmp_path), *words):
        assert word in str(refused.value)


def full_disk(monkeypatch, after):
    """The disk is full once `after` shards are written; part of the next one is there."""
    calls = []

    def save(tensors, path, metadata=None):
        calls.append(path)
        if len(calls) <= after:
            return save_file(tensors, path, metadata)
        with open(path, "wb") as file:
            file.write(b"unfinished")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(weights, "save_file", save)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("after", [0, 2])
def test_full_disk_leaves_nothing_behind_and_nothing_lost(tensors, tmp_path, monkeypatch, after):
    former, same, fresh = (tmp_path / name for name in ("former", "same", "fresh"))
    several_shards(tensors, former)
    save_released(tensors.items(), same)
    (same / "config.json").write_text("{}")
    before = contents(former), contents(same)
    full_disk(monkeypatch, after)
    for folder in (same, fresh):
        with pytest.raises(OSError, match=f"{folder}.*No space left") as failed:
            save_released(tensors.items(), folder, shard_gib=0.003)
        assert "weights" in str(failed.value)
    assert list(fresh.iterdir()) == []
    assert (contents(former), contents(same)) == before


def test_a_folder_that_cannot_be_made(tensors, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not write the weights"):
        save_released(tensors.items(), tmp_path / "file" / "out")


def test_a_later_checkpoint_replaces_all_of_an_earlier_one(tensors, tmp_path):
    several_shards(tensors, tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")  # transformers would prefer this one
    (tmp_path / "config.json").write_text("{}")
    newer = {name: tensor + 1 for name, tensor in tensors.items()}
    save_released(newer.items(), tmp_path)
    assert sorted(contents(tmp_path)) == [
        "config.json",
        "model-00001-of-00001.safetensors",
        INDEX_FILE,
    ]
    assert torch.equal(CheckpointReader(tmp_path).read(BIAS), newer[BIAS])


def test_shards_are_as_readable_as_other_files(tensors, tmp_path):
    save_released([(BIAS, tensors[BIAS])], tmp_path)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1
