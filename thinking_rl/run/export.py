"""The checkpoint that a run starts from, and the finished one: complete Hugging Face folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from thinking_rl.files.checkpoint import INDEX_FILE, checkpoint_folder, weight_map
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.model.processing import load_processor
from thinking_rl.model.tiny import write_tiny
from thinking_rl.recipe.schema import Recipe

NOT_COPIED = (".safetensors", ".bin", ".index.json", ".md")
"""Weights, and what describes other weights."""


def copy_checkpoint_files(source: str | Path, folder: str | Path) -> None:
    """Everything of a checkpoint but its weights and its model card: configuration, vocabulary,
    processor, template. The generation settings get both stop tokens and keep placeholders from
    being sampled."""
    source, folder = Path(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.endswith(NOT_COPIED):
            shutil.copyfile(file, folder / file.name)
    ids = load_processor(source).tokenizer.special_token_ids
    path = folder / "generation_config.json"
    generation = json.loads(path.read_text()) if path.exists() else {}
    generation |= {
        "eos_token_id": [ids["<|im_end|>"], ids["[EOS]"]],
        "pad_token_id": ids["[PAD]"],
        "suppress_tokens": [ids["<|media_pad|>"]],
    }
    path.write_text(json.dumps(generation, indent=2) + "\n")


def starting_checkpoint(recipe: Recipe) -> str:
    """The folder a run starts from: a small random checkpoint made for it, a folder given, or a
    hub id's snapshot.

    Raises:
        ValueError: `model.path` is none of them, or lacks files.
    """
    path = recipe.model.path
    if path == "tiny":
        folder = RunFolder.at(recipe.run_dir).small_model
        limit = recipe.model.image_token_limit or 4096
        return str(write_tiny(folder, seed=recipe.seed, image_token_limit=limit))
    return str(checkpoint_folder(path))


def export_checkpoint(export: Path, start: str, checkpoint: str) -> None:
    """Write the final weights of `checkpoint` with everything else that `start` had."""
    if export.exists():
        shutil.rmtree(export)
    copy_checkpoint_files(start, export)
    for name in (INDEX_FILE, *sorted(set(weight_map(Path(checkpoint)).values()))):
        _link(Path(checkpoint) / name, export / name)


def _link(file: Path, target: Path) -> None:
    """The same file under a second name; a copy on file systems that have no links."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
