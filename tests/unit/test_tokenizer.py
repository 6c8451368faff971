import base64
import itertools
import json
import pickle
import random
import string

import pytest
import regex
from transformers import AutoConfig, AutoTokenizer

from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.processing import register_processing
from thinking_rl.model.tokenizer import (
    MAX_CHARS,
    MAX_RUN,
    PATTERN,
    SMALL_WORDS,
    KimiTokenizer,
    pieces,
    read_vocabulary,
    special_tokens,
    write_small_vocabulary,
)

BASE = 163584
RELEASED_IDS = {
    "[BOS]": 163584,
    "[EOS]": 163585,
    "<|im_end|>": 163586,
    "<|im_user|>": 163587,
    "<|im_assistant|>": 163588,
    "<|im_system|>": 163594,
    "<|im_middle|>": 163601,
    "<|media_start|>": 163602,
    "<|media_content|>": 163603,
    "<|media_end|>": 163604,
    "<|media_pad|>": 163605,
    # the order of the last two differs among released checkpoints; here it is the other one
    "[PAD]": 163838,
    "[UNK]": 163839,
}


def vocabulary_line(token, rank):
    return base64.b64encode(token) + f" {rank}\n".encode()


@pytest.fixture(scope="module")
def released_folder(tmp_path_factory):
    """Files in the released format: 163,584 tokens, invented beyond the single bytes."""
    folder = tmp_path_factory.mktemp("released")
    words = ("".join(letters).encode() for letters in itertools.product(string.hexdigits, repeat=4))
    tokens = [bytes([value]) for value in range(256)]
    tokens += itertools.islice(words, BASE - len(tokens))
    lines = (vocabulary_line(token, rank) for rank, token in enumerate(tokens))
    (folder / "tiktoken.model").write_bytes(b"".join(lines))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    config = {
        "added_tokens_decoder": {
            str(token_id): {"content": name, "special": True, **flags}
            for name, token_id in RELEASED_IDS.items()
        },
        "additional_special_tokens": ["<|im_end|>", "<|im_user|>", "<|media_pad|>"],
        "auto_map": {"AutoTokenizer": ["tokenization_moonshot.TikTokenTokenizer", None]},
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1048576,
        "tokenizer_class": "TikTokenTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "kimi_vl"}))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return KimiTokenizer(
        write_small_vocabulary(tmp_path_factory.mktemp("small")), allow_special_tokens=False
    )


def test_released_files_give_the_published_ids(released_folder):
    AutoConfig.register("kimi_vl", KimiVLConfig, exist_ok=True)
    register_processing(KimiVLConfig)
    tokenizer = AutoTokenizer.from_pretrained(released_folder)
    assert isinstance(tokenizer, KimiTokenizer)
    assert len(tokenizer) == tokenizer.vocab_size == 163840
    for name, token_id in RELEASED_IDS.items():
        assert tokenizer.convert_tokens_to_ids(name) == token_id
        assert tokenizer.encode(name) == [token_id]
        assert tokenizer.decode([token_id]) == name
    assert tokenizer.pad_token_id == 163838
    assert tokenizer.eos_token_id == 163585
    assert tokenizer.convert_ids_to_tokens(163590) == "<|reserved_token_163590|>"


def test_small_vocabulary_has_the_same_special_tokens_after_its_own_base(small):
    for name, token_id in RELEASED_IDS.items():
        if name not in ("[PAD]", "[UNK]"):
            assert small.convert_tokens_to_ids(name) == token_id - BASE + small.base_size
    assert len(small) == small.base_size + 256


def test_every_small_word_is_one_token_and_digits_stay_single(small):
    for word in SMALL_WORDS:
        assert len(small.encode(word)) == 1, word
    assert len(small.encode("12345")) == 5
    parts = ["◁think", "▷", "3", "+", "4", "=", "7", ".◁/", "think", "▷\\", "boxed", "{", "7", "}"]
    ids = small.encode("".join(parts))
    assert [small.decode([token_id]) for token_id in ids] == parts


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("你好world's 12345", ["你好", "world's", " ", "123", "45"]),
        ("HELLOthere you'LL", ["HELLOthere", " you'LL"]),
        ("a\n\n  b  ", ["a", "\n\n", " ", " b", "  "]),
        ("x+=1 ... $\\boxed{2}", ["x", "+=", "1", " ...", " $\\", "boxed", "{", "2", "}"]),
        ("◁think▷no◁/think▷\n\nok", ["◁think", "▷no", "◁/", "think", "▷\n\n", "ok"]),
        ("日本語のテキスト", ["日本語", "のテキスト"]),
    ],
)
def test_pattern(text, pieces):
    assert regex.findall(PATTERN, text, flags=regex.V1) == pieces


@pytest.mark.parametrize(
    "text",
    [
        "stop here<|im_end|>",
        "<|media_pad|>" * 3,
        "the end [EOS] is [PAD]",
        "<|im_end|><|im_assistant|>assistant<|im_middle|>\\boxed{1}",
        "<|reserved_token_500|>",
    ],
)
def test_special_tokens_in_text_stay_text(small, text):
    for ids in (small.encode(text), small(text)["input_ids"], small.text_ids(text)):
        assert max(ids) < small.base_size
        assert small.decode(ids) == small.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_are_read_where_allowed(small):
    ids = small.encode("a<|im_end|>b", allow_special_tokens=True)
    assert ids == [ord("a"), small.convert_tokens_to_ids("<|im_end|>"), ord("b")]
    assert small.decode(ids) == "a<|im_end|>b"
    assert small.decode(ids, skip_special_tokens=True) == "ab"


def test_text_comes_back_unchanged(small, released_folder):
    released = KimiTokenizer.from_pretrained(released_folder)
    draw = random.Random(0)
    letters = "ab cdeADF01 29\n\t'é你好の◁▷{}\\$é😀"
    for _ in range(200):
        text = "".join(draw.choices(letters, k=draw.randrange(60)))
        assert small.decode(small.encode(text)) == text
        assert released.decode(released.encode(text)) == text
        tokens = small.tokenize(text)
        assert small.convert_tokens_to_string(tokens) == text
        assert small.convert_tokens_to_ids(tokens) == small.encode(text)


def split_by_hand(text):
    """Character by character: at most MAX_RUN of one class, at most MAX_CHARS in all."""
    parts = []
    for start in range(0, len(text), MAX_CHARS):
        part, run, space = "", 0, None
        for letter in text[start : start + MAX_CHARS]:
            run = run + 1 if letter.isspace() == space else 1
            space = letter.isspace()
            if run > MAX_RUN:
                parts.append(part)
                part, run = "", 1
            part += letter
        parts.append(part)
    return parts


@pytest.mark.parametrize(
    "text",
    ["1" * (2 * MAX_RUN + 2), "a b" * 7 + " " * (MAX_RUN + 5) + "12", "12 3\n" * (MAX_CHARS // 4)],
    ids=["one class", "spaces in between", "long"],
)
def test_long_texts_are_cut_as_upstream_cuts_them(small, text):
    parts = split_by_hand(text)
    assert list(pieces(text)) == parts
    assert len(parts) > 1
    assert small.decode(small.text_ids(text)) == text


def test_unfinished_characters_decode_to_the_replacement_character(small):
    ids = small.encode("né")
    assert [small.decode(ids[:end]) for end in (1, 2, 3)] == ["n", "n\ufffd", "né"]
    tokens = small.convert_ids_to_tokens(ids)
    assert small.convert_tokens_to_string(tokens[:2]) == "n\ufffd"


def test_save_and_load(small, tmp_path):
    AutoConfig.register("kimi_vl", KimiVLConfig, exist_ok=True)
    register_processing(KimiVLConfig)
    small.save_pretrained(tmp_path)
    small.save_pretrained(tmp_path)
    with open(small.vocab_file, "rb") as before:
        assert (tmp_path / "tiktoken.model").read_bytes() == before.read()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "kimi_vl"}))
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is KimiTokenizer
    assert again.get_vocab() == small.get_vocab()
    assert again.all_special_tokens == small.all_special_tokens
    assert again.allow_special_tokens, "the setting belongs to the caller, not to the checkpoint"
    copy = pickle.loads(pickle.dumps(small))
    assert copy.encode("Add [EOS]") == small.encode("Add [EOS]")


def test_batches_are_padded(small):
    batch = small(["ab", "", "a"], padding=True, return_tensors="pt")
    pad = small.pad_token_id
    assert batch["input_ids"].tolist() == [[97, 98], [pad, pad], [pad, 97]]
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_unknown_ids_are_refused(small, token_id):
    with pytest.raises(ValueError, match="not in the vocabulary"):
        small.decode([token_id])
    with pytest.raises(ValueError, match="not in the vocabulary"):
        small.convert_ids_to_tokens(token_id)


BYTES = b"".join(vocabulary_line(bytes([value]), value) for value in range(256))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BYTES + b"not base64 at all\n", "line 257: expected a base64 token"),
        (BYTES + b"YWI=\n", "line 257: expected a base64 token"),
        (BYTES + vocabulary_line(b"a", 256), "line 257: .* twice"),
        (BYTES + vocabulary_line(b"ab", 300), "ranks must be 0 to 256"),
        (vocabulary_line(b"a", 0), "255 single bytes are missing"),
    ],
)
def test_damaged_vocabularies_are_refused(tmp_path, content, message):
    file = tmp_path / "tiktoken.model"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"tiktoken.model.*{message}"):
        read_vocabulary(file)


def test_missing_vocabulary(tmp_path):
    with pytest.raises(ValueError, match="vocabulary is missing"):
        KimiTokenizer(tmp_path / "tiktoken.model")


NAMED = {token_id - BASE + 300: name for name, token_id in RELEASED_IDS.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({302: None}, "'<|im_end|>' is missing"),
        ({555: None}, "'\\[UNK\\]' is missing"),
        ({302: "[BOS]"}, "'\\[BOS\\]' has two ids, 300 and 302"),
        ({321: None, 330: "<|media_pad|>"}, "'<|media_pad|>' has id 330, expected 321"),
        ({556: "<|extra|>"}, "'<|extra|>' has id 556, outside of 300 to 555"),
    ],
)
def test_conflicting_special_tokens_are_refused(changes, message):
    named = {token_id: name for token_id, name in (NAMED | changes).items() if name}
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        special_tokens(300, named, "tokenizer_config.json")


def test_special_tokens_with_names_of_their_own_are_kept():
    ids = special_tokens(300, NAMED | {309: "[EOT]"}, "tokenizer_config.json")
    assert ids["[EOT]"] == 309
    assert len(ids) == 256


@pytest.mark.parametrize(
    ("word", "message"), [("the cat", "cut by"), ("12", "digits stay"), ("x2", "cut by")]
)
def test_small_words_are_checked(tmp_path, word, message):
    with pytest.raises(ValueError, match=message):
        write_small_vocabulary(tmp_path, words=["ok", word])
