"""Released weight names and files: reading into a model (sharded or not), and writing.

The model's parameters carry the released names, except that the routed experts of a layer are
two 3-D tensors here and three matrices per expert there. Everything that leaves the model (files,
the rollout engines) uses the released names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from thinking_rl.files.checkpoint import INDEX_FILE, SINGLE_FILE, weight_map

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
        """Raises:
        ValueError: no file has the tensor, or its file is damaged.
        """
        if name not in self.files:
            raise ValueError(
                f"{self.folder}: no tensor {name!r}; give a folder with a complete Kimi-VL "
                "checkpoint, whose config.json belongs to its weights"
            )
        file = self.folder / self.files[name]
        try:
            if file.name not in self._open:
                self._open[file.name] = safe_open(str(file), framework="pt")
            return self._open[file.name].get_tensor(name)
        except SafetensorError as error:
            raise ValueError(
                f"{file}: cannot read {name!r} ({error}); fetch the file again"
            ) from error

    def read_parameter(self, name: str, shape: torch.Size) -> torch.Tensor:
        """One parameter of ours, put together from its released parts.

        Raises:
            ValueError: a part is missing or has another shape.
        """
        parts = released_names(name, shape)
        if not _EXPERTS.match(name):
            return self._read_shaped(name, shape)
        per_expert = len(parts) // shape[0]
        part_shape = torch.Size((shape[1] // per_expert, shape[2]))
        value = torch.stack([self._read_shaped(part, part_shape) for part in parts])
        return value.view(shape)

    def _read_shaped(self, name: str, shape: torch.Size) -> torch.Tensor:
        value = self.read(name)
        if value.shape != shape:
            raise ValueError(
                f"{self.folder / self.files[name]}: {name} has shape {tuple(value.shape)}, the "
                f"configuration asks for {tuple(shape)}; config.json and the weights belong to "
                "different models"
            )
        return value


def shard_files(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, for an indexed or a single-file checkpoint.

    Raises:
        ValueError: neither exists or one is damaged, or the index names files that are not there.
    """
    if files := weight_map(folder):
        missing = sorted({file for file in files.values() if not (folder / file).exists()})
        if missing:
            raise ValueError(
                f"{folder}: {INDEX_FILE} names {len(missing)} missing shard(s): "
                f"{', '.join(missing)}; fetch the checkpoint again"
            )
        return files
    single = folder / SINGLE_FILE
    if not single.exists():
        raise ValueError(
            f"{folder}: neither {INDEX_FILE} nor {SINGLE_FILE}; give a checkpoint folder"
        )
    try:
        with safe_open(str(single), framework="pt") as file:
            return dict.fromkeys(file.keys(), single.name)
    except SafetensorError as error:
        raise ValueError(f"{single}: not readable ({error}); fetch the file again") from error


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
        raise ValueError(
            f"{folder}: {len(unread)} tensor(s) have no place in the model that config.json "
            f"describes: {some}{', ...' if len(unread) > 3 else ''}; use the config.json that "
            "belongs to the weights"
        )


def full_tensors(
    model: torch.nn.Module, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights under their released names, gathered from all processes, one parameter at a
    time. Every process must run through it. The routers' correction biases stay float32.

    Args:
        dtype: each process's part is cast to it before it is gathered, so that no more travels than
            is wanted; None: as they are.
    """
    for name, tensor in model_state(model).items():
        if dtype is not None and not name.endswith("correction_bias"):
            tensor = tensor.to(dtype)
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        yield from released_tensors(name, full.detach())


def save_released(
    tensors: Iterable[tuple[str, torch.Tensor]],
    folder: str | Path,
    *,
    shard_gib: float = SHARD_GIB,
) -> None:
    """Write (released name, tensor) pairs as sharded safetensors with an index, holding one
    shard in memory at a time. What the folder held before is replaced only when all is written.

    Raises:
        OSError: the disk is full or the folder cannot be written; unfinished files are removed.
    """
    folder = Path(folder)
    shards: list[list[str]] = []
    total = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for shard in _shards(tensors, int(shard_gib * 2**30)):
            shards.append(list(shard))
            total += sum(value.nbytes for value in shard.values())
            save_file(shard, str(_partial(folder, len(shards))), metadata={"format": "pt"})
        count = len(shards)
        files = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        _partial(folder, 0).write_text(json.dumps(index, indent=2))
        _replace(folder, files)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{folder}: could not write the weights: {error}") from error
    finally:
        for unfinished in folder.glob("shard-*.partial"):
            unfinished.unlink()


def _partial(folder: Path, number: int) -> Path:
    """Where shard `number` is written at first; the index is number 0."""
    return folder / f"shard-{number}.partial"


def _shards(
    tensors: Iterable[tuple[str, torch.Tensor]], limit: int
) -> Iterator[dict[str, torch.Tensor]]:
    """The tensors on the CPU, in groups of at most `limit` bytes; a larger one stands alone."""
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors:
        value = tensor.detach().to("cpu").contiguous().clone()
        if shard and size + value.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = value
        size += value.nbytes
    yield shard


def _replace(folder: Path, files: Sequence[str]) -> None:
    """Put the finished shards, and last their index, in place of the weights the folder held."""
    mode = _partial(folder, 0).stat().st_mode  # safetensors makes files for their owner alone
    (folder / INDEX_FILE).unlink(missing_ok=True)
    for old in folder.glob("*.safetensors"):
        old.unlink()
    for number, file in enumerate(files, start=1):
        shard = _partial(folder, number)
        shard.chmod(mode)
        shard.rename(folder / file)
    _partial(folder, 0).rename(folder / INDEX_FILE)
