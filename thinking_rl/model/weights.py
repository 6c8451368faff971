"""Released weight names and files: reading into a model (sharded or not), and writing.

The model's parameters carry the released names, except that the routed experts of a layer are
two 3-D tensors here and three matrices per expert there. Everything that leaves the model (files,
the rollout engines) uses the released names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

INDEX_NAME = "model.safetensors.index.json"
SHARD_GIB = 4.0

_EXPERTS = re.compile(r"(.*\.mlp\.experts\.)(gate_up_proj|down_proj)$")


def released_names(name: str, shape: torch.Size | tuple[int, ...]) -> list[str]:
    """The released names of what one parameter of ours holds, in the order of
    `released_tensors`."""
    match = _EXPERTS.match(name)
    if not match:
        return [name]
    prefix, kind = match.groups()
    parts = ["gate_proj", "up_proj"] if kind == "gate_up_proj" else ["down_proj"]
    return [f"{prefix}{expert}.{part}.weight" for expert in range(shape[0]) for part in parts]


def released_tensors(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """One parameter of ours as released (name, tensor) pairs; views where possible."""
    names = released_names(name, tensor.shape)
    if len(names) == 1 and names[0] == name:
        yield name, tensor
        return
    per_expert = len(names) // tensor.shape[0]
    matrices = [part for expert in tensor for part in expert.chunk(per_expert)]
    yield from zip(names, matrices, strict=True)


class CheckpointReader:
    """Tensors of a folder of safetensors files, by released name, read when asked for."""

    def __init__(self, folder: str | Path):
        """Raises:
        ValueError: no weights in the folder, or a shard named in its index is missing.
        """
        self.folder = Path(folder)
        self.files = shard_files(self.folder)
        self._open: dict[str, safe_open] = {}

    def names(self) -> set[str]:
        return set(self.files)

    def read(self, name: str) -> torch.Tensor:
        if name not in self.files:
            raise ValueError(f"{self.folder}: no tensor {name!r}; is this a Kimi-VL checkpoint?")
        file = self.files[name]
        if file not in self._open:
            self._open[file] = safe_open(str(self.folder / file), framework="pt")
        return self._open[file].get_tensor(name)

    def read_parameter(self, name: str, shape: torch.Size) -> torch.Tensor:
        """One parameter of ours, put together from its released parts."""
        parts = [self.read(part) for part in released_names(name, shape)]
        if _EXPERTS.match(name):
            per_expert = len(parts) // shape[0]
            pairs = [parts[i : i + per_expert] for i in range(0, len(parts), per_expert)]
            value = torch.stack([torch.cat(pair) for pair in pairs])
        else:
            value = parts[0]
        if value.shape != shape:
            raise ValueError(
                f"{self.folder}: {name} has shape {tuple(value.shape)}, the configuration asks "
                f"for {tuple(shape)}; config.json and the weights belong to different models"
            )
        return value


def shard_files(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, for an indexed or a single-file checkpoint.

    Raises:
        ValueError: neither exists, or the index names files that are not there.
    """
    index = folder / INDEX_NAME
    if index.exists():
        files = json.loads(index.read_text())["weight_map"]
        missing = sorted({file for file in files.values() if not (folder / file).exists()})
        if missing:
            raise ValueError(
                f"{folder}: {INDEX_NAME} names {len(missing)} missing shard(s): "
                f"{', '.join(missing)}; fetch the checkpoint again"
            )
        return files
    single = folder / "model.safetensors"
    if not single.exists():
        raise ValueError(f"{folder}: neither {INDEX_NAME} nor model.safetensors; not a checkpoint")
    with safe_open(str(single), framework="pt") as file:
        return {name: single.name for name in file.keys()}  # noqa: SIM118 (not a dict)


def model_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a checkpoint holds: all parameters, and the routers' correction biases."""
    return dict(model.state_dict())


@torch.no_grad()
def load_released(model: torch.nn.Module, folder: str | Path) -> None:
    """Fill a model (on one device or sharded by FSDP2) from a folder of released weights.

    Each process reads every tensor from the memory-mapped file and keeps its own part.

    Raises:
        ValueError: a shard, a tensor or a shape is not as the configuration says, or the folder
            holds tensors that the model has no place for.
    """
    reader = CheckpointReader(folder)
    unread = {name for name in reader.names() if not name.endswith("rotary_emb.inv_freq")}
    for name, target in model_state(model).items():
        value = reader.read_parameter(name, target.shape)
        unread -= set(released_names(name, target.shape))
        if isinstance(target, DTensor):
            value = value.to(target.device, target.dtype)
            value = distribute_tensor(
                value, target.device_mesh, target.placements, src_data_rank=None
            )
        target.copy_(value)
    if unread:
        some = ", ".join(sorted(unread)[:3])
        raise ValueError(f"{folder}: {len(unread)} tensors have no place in the model: {some} ...")


def full_tensors(
    model: torch.nn.Module, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights under their released names, gathered from all processes, one parameter at a
    time. Every process must run through it. The routers' correction biases stay float32."""
    for name, tensor in model_state(model).items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if dtype is not None and full.is_floating_point() and not name.endswith("correction_bias"):
            full = full.to(dtype)
        yield from released_tensors(name, full.detach())


def save_released(
    tensors: Iterable[tuple[str, torch.Tensor]],
    folder: str | Path,
    *,
    shard_gib: float = SHARD_GIB,
) -> None:
    """Write (released name, tensor) pairs as sharded safetensors with an index, holding one
    shard in memory at a time. The index comes last: without it the folder is no checkpoint.

    Raises:
        OSError: the disk is full or the folder cannot be written; unfinished files are removed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    limit = int(shard_gib * 2**30)
    shards: list[list[str]] = []
    pending: dict[str, torch.Tensor] = {}
    size = total = 0

    def flush() -> None:
        nonlocal size
        partial = folder / f"shard-{len(shards) + 1}.partial"
        try:
            save_file(pending, str(partial), metadata={"format": "pt"})
        except Exception as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"{folder}: could not write weights: {error}") from error
        shards.append(list(pending))
        pending.clear()
        size = 0

    for name, tensor in tensors:
        value = tensor.detach().to("cpu").contiguous().clone()
        if pending and size + value.nbytes > limit:
            flush()
        pending[name] = value
        size += value.nbytes
        total += value.nbytes
    flush()
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}.partial").rename(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2))
