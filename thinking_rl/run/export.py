"""The finished checkpoint: a complete Hugging Face folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from thinking_rl.model.processing import load_processor

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
