"""Checkpoint folders seen from outside: found or fetched, and complete. No torch here."""

from __future__ import annotations

from pathlib import Path

from thinking_rl.files.json_files import read_json

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
TOKENIZER_FILES = ("tiktoken.model", "tokenizer.json")


def checkpoint_folder(place: str) -> Path:
    """A complete checkpoint: a folder, or the snapshot of a hub id, which is fetched.

    Raises:
        ValueError: it is neither, or lacks files.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(place))
        except Exception as error:  # network, access rights, names: the hub raises all kinds
            raise ValueError(
                f"{place!r} is neither a folder nor a hub id that can be fetched: {error}"
            ) from error
    check_complete(folder)
    return folder.resolve()


def check_complete(folder: Path) -> list[str]:
    """Names of a checkpoint's weight files.

    Raises:
        ValueError: configuration, tokenizer or shards are missing (all are listed), or a file that
            describes the others is damaged.
    """
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        missing.append(" or ".join(TOKENIZER_FILES))
    shards = sorted(set(weight_map(folder).values())) or [SINGLE_FILE]
    missing += [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}: is the checkpoint complete?")
    read_json(folder / "config.json")
    return shards


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, by the checkpoint's index; empty where it has none.

    Raises:
        ValueError: the index is damaged.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        return {}
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(
            f"{index}: expected `weight_map`, from tensor names to files; fetch it again"
        )
    return names
