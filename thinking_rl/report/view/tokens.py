"""Token ids as text, from a checkpoint's vocabulary file alone."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

VOCABULARY, CONFIGURATION = "tiktoken.model", "tokenizer_config.json"


def vocabulary_folder(folders: Iterable[Path]) -> Path | None:
    """The first of some folders that has a vocabulary."""
    return next((folder for folder in folders if (folder / VOCABULARY).is_file()), None)


def token_texts(folder: Path, ids: Sequence[Sequence[int]]) -> list[list[str]]:
    """For each response the text of each of its tokens. A character whose bytes come in several
    tokens stands at the last of them.

    The file is read at every call and nothing of it is kept: tens of milliseconds for the released
    vocabulary.
    """
    wanted = {token for one in ids for token in one}
    known = special_tokens(folder) | read_tokens(folder, wanted)
    return [_texts(one, known) for one in ids]


def read_tokens(folder: Path, wanted: set[int]) -> dict[int, bytes]:
    """The bytes of some tokens; the file has a token, in base64, and its id on each line."""
    found = {}
    with (folder / VOCABULARY).open("rb") as file:
        for line in file:
            text, _, number = line.partition(b" ")
            if number and int(number) in wanted:
                found[int(number)] = base64.b64decode(text)
    return found


def special_tokens(folder: Path) -> dict[int, bytes]:
    """Special tokens as they are written."""
    try:
        added = json.loads((folder / CONFIGURATION).read_text())["added_tokens_decoder"]
    except (OSError, ValueError, KeyError):
        return {}
    return {int(number): entry["content"].encode() for number, entry in added.items()}


def _texts(ids: Sequence[int], known: dict[int, bytes]) -> list[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(known.get(token, f"⟨{token}⟩".encode())) for token in ids]
