"""A teacher behind an OpenAI-compatible endpoint, such as `vllm serve`."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN
from rollouts.prompts import request_seed
from thinking_rl.curation.asking import Item, Response
from thinking_rl.model.images import read_image
from thinking_rl.model.processing import problem_messages
from thinking_rl.report.pictures import KINDS, kind_of
from thinking_rl.types import FinishReason, ImageSource

TRIES = 4
LARGEST_ANSWER_BYTES = 16 * 2**20
AGAIN = (408, 409, 429, 500, 502, 503, 504)
"""Statuses after which the same request may do."""
_THINK = re.compile(r"^\s*<think>(.*?)</think>", re.DOTALL)


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask."""

    url: str
    """Such as http://localhost:8000/v1."""
    model: str
    """As the server calls it."""
    temperature: float
    """Of sampling."""
    top_p: float
    """Share of the probability that tokens are drawn from."""
    max_tokens: int
    """Longest response, in tokens."""
    seed: int
    """Makes the seed of each request, with the problem and the sample."""
    parallel: int = 8
    """Requests under way at once."""
    timeout_s: float = 600.0
    """Longest wait for one response, in seconds."""
    key: str = ""
    """Sent as a bearer token; empty: none is."""

    def __call__(self, items: Sequence[Item]) -> list[Response]:
        """The answers, in the order of the items.

        Raises:
            ValueError: the endpoint refuses a request, or answers something else.
            RuntimeError: it does not answer.
        """
        with ThreadPoolExecutor(self.parallel) as threads:
            return list(threads.map(self._ask, items))

    def _ask(self, item: Item) -> Response:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content_of(item)}],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": request_seed(self.seed, "warm-up", item.problem.id, item.sample) % 2**31,
        }
        return response_of(self._post(body), self.url)

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        reason = ""
        for attempt in range(TRIES):
            time.sleep(2**attempt - 1 if attempt else 0)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                    return json.loads(answer.read(LARGEST_ANSWER_BYTES))
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.read(300).decode(errors='replace')}"
                if error.code not in AGAIN:
                    raise ValueError(f"{self.url} refuses a request: {reason}") from None
            except json.JSONDecodeError:
                raise ValueError(f"{self.url}: the answer is no JSON; is it an endpoint?") from None
            except OSError as error:
                reason = str(error)
        raise RuntimeError(f"{self.url} does not answer ({TRIES} tries): {reason}")


def content_of(item: Item) -> list[dict[str, Any]]:
    """The user's turn in the endpoint's form, pictures inline in their places."""
    [message] = problem_messages(item.problem, item.instruction, lambda source: source)  # pyright: ignore
    return [
        {"type": "text", "text": part["text"]}
        if part["type"] == "text"
        else {"type": "image_url", "image_url": {"url": _inline(part["image"])}}
        for part in message["content"]
    ]


def _inline(source: ImageSource) -> str:
    data = read_image(source)
    media, _ = KINDS.get(kind_of(data), KINDS["png"])
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def response_of(answer: Any, where: str) -> Response:
    """What a chat completion says, with its reasoning between Kimi's marks.

    Raises:
        ValueError: it is no chat completion.
    """
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}: no chat completion ({error!r})") from None
    if not isinstance(text, str) or not isinstance(thought, str):
        raise ValueError(f"{where}: no chat completion (its content is no text)")
    if thought:
        text = f"{THINK_OPEN}{thought}{THINK_CLOSE}{text}"
    else:
        text = _THINK.sub(lambda found: f"{THINK_OPEN}{found[1]}{THINK_CLOSE}", text)
    stopped = choice.get("finish_reason") == "stop"
    return Response(text, tokens, FinishReason.STOP if stopped else FinishReason.LENGTH)
