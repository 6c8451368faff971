"""Kimi-VL's tokenizer, read from the released files without remote code.

A checkpoint carries `tiktoken.model` (base64 token and rank a line) and `tokenizer_config.json`.
The 256 special tokens follow the base vocabulary, whatever its size: 163,584 in the released
checkpoints, a few hundred in the small one that `write_small_vocabulary` makes.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tiktoken
from transformers import AddedToken, PreTrainedTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCABULARY_FILE = "tiktoken.model"
NUM_SPECIAL = 256
# Place after the base vocabulary -> name. The last two stand in either order in released
# checkpoints; there tokenizer_config.json decides.
SPECIAL_TOKENS = {
    0: "[BOS]",
    1: "[EOS]",
    2: "<|im_end|>",
    3: "<|im_user|>",
    4: "<|im_assistant|>",
    10: "<|im_system|>",
    17: "<|im_middle|>",
    18: "<|media_start|>",
    19: "<|media_content|>",
    20: "<|media_end|>",
    21: "<|media_pad|>",
    254: "[UNK]",
    255: "[PAD]",
}
UNORDERED = (254, 255)

_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    (
        r"[\p{Han}]+",
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""How text is cut before byte-pair merging; part of the vocabulary's format."""

# tiktoken overflows its stack on longer texts and on longer runs of one class.
MAX_CHARS = 400_000
MAX_RUN = 25_000
_LONG_RUN = re.compile(rf"\s{{{MAX_RUN + 1},}}|\S{{{MAX_RUN + 1},}}")

SMALL_WORDS = (
    # the chat template
    *("system", "user", "assistant", "image", "You", " are", " a", " helpful", " assistant"),
    # thinking and answering, cut as the pattern cuts them
    *("◁think", "▷", "▷I", "▷The", "◁/", ".◁/", "think", "▷\\", "▷\n", "▷\n\n", "\n\n", ".\n"),
    *("boxed", "\\boxed", " boxed", " \\", "{\\", " $\\", "}.", " =", " +", " answer", "Answer"),
    *(" is", "The", " final", " no", " No", " read", " value"),
    # short questions
    *("Add", " the", " digits", " digit", " sum", " number", " of", "What", "How", " many"),
    *(" in", " and", " to", " picture", " image", " shown", "Read", " from", "Find", " what"),
    *("Work", " out", " written"),
)


def read_vocabulary(file: Path) -> dict[bytes, int]:
    """Token bytes -> rank from a `tiktoken.model` file.

    Raises:
        ValueError: the file is missing, a line is not "base64 rank", a rank or token repeats,
            ranks leave a gap, or a single byte is missing; names file and, where there is one,
            line.
    """
    if not file.is_file():
        raise ValueError(f"{file}: the vocabulary is missing; a checkpoint has {VOCABULARY_FILE}")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(
                f"{file}, line {number}: expected a base64 token and its rank, found {line[:60]!r}"
            ) from error
        if len(ranks) != number:
            raise ValueError(f"{file}, line {number}: the token {line[:60]!r} stands there twice")
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{file}: ranks must be 0 to {len(ranks) - 1}, each once")
    missing = [value for value in range(256) if bytes([value]) not in ranks]
    if missing:
        raise ValueError(f"{file}: {len(missing)} single bytes are missing, first {missing[0]}")
    return ranks


def special_tokens(base: int, configured: Mapping[int, Any], origin: str) -> dict[str, int]:
    """Name -> id of the 256 special tokens after a base vocabulary of `base` tokens.

    `configured` is the `added_tokens_decoder` of tokenizer_config.json (id -> token); empty, the
    table above names them. Tokens without a name are `<|reserved_token_{id}|>`.

    Raises:
        ValueError: an id is out of range, a name repeats, a name this project needs is missing, or
            a name stands at another place than in the released vocabulary.
    """
    named = {int(token_id): str(token) for token_id, token in configured.items()}
    named = named or {base + place: name for place, name in SPECIAL_TOKENS.items()}
    outside = sorted(token_id for token_id in named if not base <= token_id < base + NUM_SPECIAL)
    if outside:
        raise ValueError(
            f"{origin}: special token {named[outside[0]]!r} has id {outside[0]}, outside of "
            f"{base} to {base + NUM_SPECIAL - 1} which follow the {base} tokens of the vocabulary"
        )
    ids: dict[str, int] = {}
    for token_id in range(base, base + NUM_SPECIAL):
        name = named.get(token_id, _reserved(token_id))
        if name in ids:
            raise ValueError(f"{origin}: {name!r} has two ids, {ids[name]} and {token_id}")
        ids[name] = token_id
    for place, name in SPECIAL_TOKENS.items():
        if name not in ids:
            raise ValueError(f"{origin}: special token {name!r} is missing from the vocabulary")
        if place not in UNORDERED and ids[name] != base + place:
            raise ValueError(
                f"{origin}: special token {name!r} has id {ids[name]}, expected {base + place}; "
                "converted checkpoints that renumber special tokens cannot be used"
            )
    return ids


def _reserved(token_id: int) -> str:
    return f"<|reserved_token_{token_id}|>"


def pieces(text: str) -> Iterator[str]:
    """The text in parts which tiktoken can take."""
    for start in range(0, len(text), MAX_CHARS):
        part = text[start : start + MAX_CHARS]
        cut = 0
        for run in _LONG_RUN.finditer(part):
            for end in range(run.start() + MAX_RUN, run.end(), MAX_RUN):
                yield part[cut:end]
                cut = end
        yield part[cut:]


class KimiTokenizer(PreTrainedTokenizer):
    """Byte-level BPE over tiktoken.

    `allow_special_tokens` says what `encode` and the call make of special tokens written out in a
    text, where they are not told: take them as such (True; vLLM and whoever else comes by way of
    AutoTokenizer relies on it), or as plain text (False; what `load_processor` sets, so that text
    from data cannot end a turn or claim an image). `text_ids` takes them as plain text always,
    unless told otherwise. The setting is not saved with a checkpoint.
    """

    vocab_files_names = {"vocab_file": VOCABULARY_FILE}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"
    """Of a batch: what is generated goes on where the prompt ends."""

    def __init__(
        self,
        vocab_file: str | Path,
        added_tokens_decoder: Mapping[int, Any] | None = None,
        bos_token: Any = "[BOS]",
        eos_token: Any = "[EOS]",
        unk_token: Any = "[UNK]",
        pad_token: Any = "[PAD]",
        allow_special_tokens: bool = True,
        **kwargs: Any,
    ):
        self.allow_special_tokens = allow_special_tokens
        ranks = read_vocabulary(Path(vocab_file))
        self.vocab_file = str(vocab_file)
        self.base_size = len(ranks)
        self.special_token_ids = special_tokens(
            self.base_size, added_tokens_decoder or {}, str(vocab_file)
        )
        self._encoding = tiktoken.Encoding(
            Path(vocab_file).name,
            pat_str=PATTERN,
            mergeable_ranks=ranks,
            special_tokens=self.special_token_ids,
        )
        letters = bytes_to_unicode()
        self._byte_of = {letter: value for value, letter in letters.items()}
        self._visible = [""] * self.base_size + list(self.special_token_ids)
        for token, rank in ranks.items():
            self._visible[rank] = "".join(letters[value] for value in token)
        self._vocab = {text: token_id for token_id, text in enumerate(self._visible)}

        standard = {
            "bos_token": str(bos_token),
            "eos_token": str(eos_token),
            "unk_token": str(unk_token),
            "pad_token": str(pad_token),
        }
        for role, name in standard.items():
            if name not in self.special_token_ids:
                raise ValueError(f"{vocab_file}: the {role} {name!r} is not a special token")
        named = {
            token_id: AddedToken(name, special=True, normalized=False)
            for name, token_id in self.special_token_ids.items()
            if name != _reserved(token_id)
        }
        extra = [str(token) for token in named.values() if str(token) not in standard.values()]
        # vLLM hands every part of a processor the tokenizer it already has.
        kwargs.pop("tokenizer", None)
        kwargs["extra_special_tokens"] = extra
        super().__init__(added_tokens_decoder=named, **standard, **kwargs)

    @property
    def vocab_size(self) -> int:
        """Base vocabulary and special tokens together."""
        return self.base_size + NUM_SPECIAL

    def get_vocab(self) -> dict[str, int]:
        """Token in its printable form (GPT-2's byte letters) -> id."""
        return dict(self._vocab)

    def text_ids(self, text: str, allow_special_tokens: bool = False) -> list[int]:
        """Token ids of a text; special tokens in it are plain text unless allowed."""
        allowed = "all" if allow_special_tokens else set()
        ids: list[int] = []
        for piece in pieces(text):
            ids += self._encoding.encode(piece, allowed_special=allowed, disallowed_special=())
        return ids

    def tokenize(
        self, text: str, allow_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[str]:
        """Tokens of a text in their printable form."""
        if allow_special_tokens is None:
            allow_special_tokens = self.allow_special_tokens
        return self.convert_ids_to_tokens(self.text_ids(text, allow_special_tokens))

    @functools.wraps(PreTrainedTokenizer.apply_chat_template)
    def apply_chat_template(self, conversation, **kwargs):
        meant = {"allow_special_tokens": True}  # those which the template writes
        kwargs["tokenizer_kwargs"] = meant | (kwargs.get("tokenizer_kwargs") or {})
        return super().apply_chat_template(conversation, **kwargs)

    def _decode(self, token_ids, skip_special_tokens: bool = False, **kwargs: Any) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        for token_id in ids:
            self._check_id(token_id)
        if skip_special_tokens:
            ids = [token_id for token_id in ids if token_id < self.base_size]
        return self._encoding.decode(ids, errors="replace")

    def _check_id(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token id {token_id} is not in the vocabulary of {self.vocab_size}")

    def _convert_token_to_id(self, token: str) -> int:
        return self._vocab.get(token, self.special_token_ids[str(self.unk_token)])

    def _convert_id_to_token(self, index: int) -> str:
        self._check_id(index)
        return self._visible[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of printable tokens; bytes that are no UTF-8 become U+FFFD."""
        raw = b"".join(
            token.encode()
            if token in self.special_token_ids
            else bytes(self._byte_of[letter] for letter in token)
            for token in tokens
        )
        return raw.decode(errors="replace")

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Copy the vocabulary file, byte for byte."""
        name = f"{filename_prefix}-{VOCABULARY_FILE}" if filename_prefix else VOCABULARY_FILE
        target = Path(save_directory) / name
        if not (target.exists() and target.samefile(self.vocab_file)):
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)


class TikTokenTokenizer(KimiTokenizer):
    """The name by which the released tokenizer_config.json asks for the tokenizer."""


def write_small_vocabulary(folder: Path, words: Sequence[str] = SMALL_WORDS) -> Path:
    """Write a `tiktoken.model` of the 256 bytes and whole `words`; its path.

    A word is one token wherever the pattern cuts a text into exactly that piece. Digits stay
    single bytes.

    Raises:
        ValueError: the pattern would cut a word, or a word has a digit.
    """
    tokens = {bytes([value]): value for value in range(256)}
    for word in words:
        tokens.setdefault(word.encode(), len(tokens))
    encoding = tiktoken.Encoding(
        "small", pat_str=PATTERN, mergeable_ranks=tokens, special_tokens={}
    )
    for word in words:
        if encoding.encode(word, disallowed_special=()) != [tokens[word.encode()]]:
            raise ValueError(f"{word!r} is cut by the tokenizer's pattern; give its pieces instead")
        if len(word) > 1 and any(letter.isdigit() for letter in word):
            raise ValueError(f"{word!r}: digits stay single tokens in the small vocabulary")
    file = Path(folder) / VOCABULARY_FILE
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in tokens.items())
    file.write_bytes(b"".join(lines))
    return file
