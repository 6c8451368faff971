"""Conversations to token ids and patches: the chat template, twice.

`CHAT_TEMPLATE` is the jinja text that travels with a checkpoint. `KimiVLProcessor.render` is what
this project uses: it encodes text from data as plain text and puts special tokens in by id, so
nothing written in a problem can end a turn or claim an image.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
    PreTrainedConfig,
    ProcessorMixin,
)

from thinking_rl.model.images import (
    CutImage,
    KimiVLImageProcessor,
    Pictures,
    flat,
    open_image,
    stack_patches,
)
from thinking_rl.model.tokenizer import (
    SMALL_WORDS,
    KimiTokenizer,
    TikTokenTokenizer,
    write_small_vocabulary,
)
from thinking_rl.types import ImageSource, Problem

DEFAULT_SYSTEM = "You are a helpful assistant"
ROLES = ("system", "user", "assistant")
MEDIA_PAD = "<|media_pad|>"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('unknown role ' ~ message['role']) -}}
{%- endif -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>' -}}
{%- endif -%}
{{- '<|im_' ~ message['role'] ~ '|>' ~ message['role'] ~ '<|im_middle|>' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] in ['image', 'image_url'] -%}
{{- '<|media_start|>image<|media_content|><|media_pad|><|media_end|>' -}}
{%- else -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_assistant|>assistant<|im_middle|>' -}}
{%- endif -%}
"""

LoadImage = Callable[[ImageSource], Image.Image | CutImage]

_IMAGE_MARK = re.compile(r"<image([1-9][0-9]*)>")


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it."""

    token_ids: list[int]
    """With each image's `<|media_pad|>` repeated, once for a 2 x 2 cell of patches."""
    images: list[CutImage]
    """In the order of their placeholders; patches where the message held a picture."""
    assistant_mask: list[int]
    """1 on what the assistant says, its closing `<|im_end|>` included; as long as token_ids."""


def check_placeholders(
    token_ids: Sequence[int], images: Sequence[CutImage], media_token_id: int
) -> None:
    """See that the ids hold one `<|media_pad|>` for every 2 x 2 patches.

    Raises:
        ValueError: they hold more or fewer.
    """
    found = sum(token_id == media_token_id for token_id in token_ids)
    expected = sum(image.num_tokens for image in images)
    if found != expected:
        raise ValueError(
            f"the prompt has {found} image placeholders (token {media_token_id}) but its "
            f"{len(images)} images need {expected}"
        )


class KimiVLProcessor(ProcessorMixin):
    """Tokenizer, image processor and chat template of a checkpoint."""

    def __init__(
        self,
        image_processor: KimiVLImageProcessor,
        tokenizer: KimiTokenizer,
        chat_template: str | None = None,
    ):
        template = chat_template or tokenizer.chat_template or CHAT_TEMPLATE
        super().__init__(image_processor, tokenizer, chat_template=template)
        self.image_token = MEDIA_PAD
        self.media_token_id: int = tokenizer.special_token_ids[MEDIA_PAD]

    def __call__(
        self,
        images: Pictures | None = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """The interface of transformers and vLLM: text from the chat template, and its images.

        Pictures come in the order of their placeholders, as one list or as a list for each text.
        Special tokens in the text count as such, so use `render` for anything that holds text
        from data. Each `<|media_pad|>` of the text, one an image, is repeated as the image
        needs; other options go to the tokenizer.

        Raises:
            ValueError: there are more or fewer `<|media_pad|>` than images.
        """
        data: dict[str, Any] = {}
        texts = [text] if isinstance(text, str) else list(text or ())
        if images is not None:
            cut = [self.image_processor.patches(image) for image in flat(images)]
            data = stack_patches(cut) if cut else {}
            texts = _expand(texts, [image.num_tokens for image in cut])
        if text is not None:
            encoded = self.tokenizer(
                texts, allow_special_tokens=True, return_tensors=return_tensors, **kwargs
            )
            data = {**encoded, **data}
        return BatchFeature(data, tensor_type=return_tensors)

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> Rendered:
        """Token ids, patches and mask of a conversation.

        A message is `{"role": ..., "content": ...}` with text, or a list of
        `{"type": "text", "text": str}` and `{"type": "image", "image": ...}`, as content; an image
        is a PIL picture, which is cut, or a `CutImage`.

        Raises:
            ValueError: there is no message, or a role or kind of content that is not known.
        """
        if not messages:
            raise ValueError("a conversation needs at least one message")
        rendering = _Rendering(self)
        if messages[0].get("role") != "system":
            rendering.turn("system", DEFAULT_SYSTEM)
        for message in messages:
            rendering.turn(message.get("role"), message.get("content"))
        if add_generation_prompt:
            rendering.open_turn("assistant")
        result = rendering.result
        check_placeholders(result.token_ids, result.images, self.media_token_id)
        return result

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Write the files of the released layout: vocabulary, tokenizer_config.json,
        chat_template.jinja and preprocessor_config.json."""
        self.tokenizer.chat_template = self.chat_template
        self.tokenizer._set_processor_class(type(self).__name__)
        return [
            *self.tokenizer.save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs),
            *self.image_processor.save_pretrained(save_directory, push_to_hub, **kwargs),
        ]


def _expand(texts: Sequence[str], counts: Sequence[int]) -> list[str]:
    """The texts with the n-th placeholder, counted through all of them, counts[n] times."""
    found = sum(text.count(MEDIA_PAD) for text in texts)
    if texts and found != len(counts):
        raise ValueError(f"the text has {found} {MEDIA_PAD} but there are {len(counts)} images")
    left = iter(counts)
    return [re.sub(re.escape(MEDIA_PAD), lambda _: MEDIA_PAD * next(left), text) for text in texts]


class _Rendering:
    """A conversation being rendered."""

    def __init__(self, processor: KimiVLProcessor):
        self.image_processor: KimiVLImageProcessor = processor.image_processor
        self.tokenizer: KimiTokenizer = processor.tokenizer
        self.result = Rendered([], [], [])

    def turn(self, role: Any, content: Any) -> None:
        said = int(role == "assistant")
        self.open_turn(role)
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, Sequence):
            raise ValueError(f"content must be text or a list of parts, found {content!r:.80}")
        for part in parts:
            match part:
                case {"type": "text", "text": str(text)}:
                    self.add(self.tokenizer.text_ids(text), said)
                case {"type": "image", "image": Image.Image() as picture}:
                    self.image(self.image_processor.patches(picture), said)
                case {"type": "image", "image": CutImage() as image}:
                    self.image(image, said)
                case _:
                    raise ValueError(
                        "a part of a message must be {'type': 'text', 'text': str} or "
                        f"{{'type': 'image', 'image': PIL.Image}}, found {part!r:.80}"
                    )
        self.add(self.ids("<|im_end|>"), said)

    def open_turn(self, role: Any) -> None:
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; expected one of {', '.join(ROLES)}")
        start = self.ids(f"<|im_{role}|>")
        self.add(start + self.tokenizer.text_ids(role) + self.ids("<|im_middle|>"), 0)

    def image(self, image: CutImage, said: int) -> None:
        self.result.images.append(image)
        opening = self.ids("<|media_start|>") + self.tokenizer.text_ids("image")
        self.add(opening + self.ids("<|media_content|>"), said)
        self.add(self.ids(MEDIA_PAD) * image.num_tokens + self.ids("<|media_end|>"), said)

    def ids(self, name: str) -> list[int]:
        return [self.tokenizer.special_token_ids[name]]

    def add(self, token_ids: list[int], said: int) -> None:
        self.result.token_ids.extend(token_ids)
        self.result.assistant_mask.extend([said] * len(token_ids))


def problem_messages(
    problem: Problem, instruction: str = "", load: LoadImage = open_image
) -> list[dict[str, Any]]:
    """The user turn of a problem: images, question, choices, instruction.

    The first `<imageN>` in question or choices is the place of image N; images without a mark
    stand before the text. Choices follow as lines "(A) text" unless they are just the letters.

    Args:
        load: what becomes of an image; `ImageStore.add` cuts each of a run once.

    Raises:
        ValueError: an image cannot be used; the problem is named.
    """
    letters = string.ascii_uppercase[: len(problem.choices)]
    if len(problem.choices) > len(letters):
        raise ValueError(f"problem {problem.id}: {len(problem.choices)} choices are more than 26")
    lines = [problem.question]
    if tuple(letters) != problem.choices:
        pairs = zip(letters, problem.choices, strict=True)
        lines += [f"({letter}) {choice}" for letter, choice in pairs]
    if instruction:
        lines.append(instruction)
    images = [_load(problem, place, load) for place in range(len(problem.images))]
    parts: list[dict[str, Any]] = []
    text, start, placed = "\n".join(lines), 0, set()
    for mark in _IMAGE_MARK.finditer(text):
        place = int(mark[1]) - 1
        if place >= len(images) or place in placed:
            continue
        placed.add(place)
        parts.append({"type": "text", "text": text[start : mark.start()]})
        parts.append({"type": "image", "image": images[place]})
        start = mark.end()
    parts.append({"type": "text", "text": text[start:]})
    first = [
        {"type": "image", "image": image}
        for place, image in enumerate(images)
        if place not in placed
    ]
    parts = [part for part in parts if part.get("text") != ""]
    return [{"role": "user", "content": first + parts}]


def conversation_messages(
    problem: Problem, response: str, instruction: str = "", load: LoadImage = open_image
) -> list[dict[str, Any]]:
    """The problem as the user's turn, the response as the assistant's."""
    asked = problem_messages(problem, instruction, load)
    return [*asked, {"role": "assistant", "content": response}]


def _load(problem: Problem, place: int, load: LoadImage) -> Image.Image | CutImage:
    try:
        return load(problem.images[place])
    except ValueError as error:
        raise ValueError(f"problem {problem.id}, image {place + 1}: {error}") from error


def register_processing(*config_classes: type[PreTrainedConfig]) -> None:
    """Make transformers' Auto classes load a checkpoint of these configurations with our classes,
    released files and ours alike, without remote code."""
    for config_class in config_classes:
        AutoTokenizer.register(
            config_class,
            tokenizer_class=KimiTokenizer,
            slow_tokenizer_class=TikTokenTokenizer,
            exist_ok=True,
        )
        AutoImageProcessor.register(
            config_class, image_processor_classes={"pil": KimiVLImageProcessor}, exist_ok=True
        )
        AutoProcessor.register(config_class, KimiVLProcessor, exist_ok=True)


def load_processor(folder: str | Path, image_token_limit: int | None = None) -> KimiVLProcessor:
    """The processor of a checkpoint folder, for text from data (see KimiTokenizer).

    Args:
        image_token_limit: most patches of an image; None: what the checkpoint says.

    Raises:
        ValueError: a file is missing or damaged; names it.
    """
    folder = Path(folder)
    for name in ("tiktoken.model", "tokenizer_config.json", "preprocessor_config.json"):
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{file} is missing; a Kimi-VL checkpoint folder has it")
        if file.suffix == ".json":
            try:
                json.loads(file.read_text())
            except ValueError as error:
                raise ValueError(f"{file}: not JSON ({error})") from error
    image_processor = KimiVLImageProcessor.from_pretrained(folder)
    if image_token_limit is not None:
        image_processor.in_token_limit = image_token_limit
    tokenizer = KimiTokenizer.from_pretrained(folder, allow_special_tokens=False)
    return KimiVLProcessor(image_processor, tokenizer)


def write_processor_files(
    folder: str | Path, *, in_token_limit: int = 4096, words: Sequence[str] = SMALL_WORDS
) -> KimiVLProcessor:
    """Write the vocabulary and processor files of a small checkpoint; the processor."""
    vocabulary = write_small_vocabulary(Path(folder), words)
    processor = KimiVLProcessor(
        KimiVLImageProcessor(in_token_limit=in_token_limit),
        KimiTokenizer(vocabulary, allow_special_tokens=False),
    )
    processor.save_pretrained(folder)
    return processor
