"""Sampling by the clock, one JSON line a figure: `python -m benchmarks.rollout`.

The small model with imposed, long-tailed lengths (lognormal, most of the spread the problem's own).
First bare vLLM and our engine on the same requests, in this process; then engines in actors: each
gets its share beforehand in one call (static), or requests as it has room (free).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.agreement import engine_settings
from rollouts.engine import Engine, EngineSettings, Request
from thinking_rl.model.tiny import write_tiny

PROBLEMS, SAMPLES = 24, 8
MEAN, SPREAD, LONGEST = 60, 0.9, 400
"""Tokens; of the logarithm; tokens."""
SLOTS = 32


def requests(seed: int = 0) -> list[Request]:
    """Text prompts whose answers have the imposed lengths; the members of a problem alike."""
    draw, found = random.Random(seed), []
    for problem in range(PROBLEMS):
        prompt = tuple(draw.randrange(100, 120) for _ in range(20))
        common = draw.gauss()
        for sample in range(SAMPLES):
            deviate = math.sqrt(0.6) * common + math.sqrt(0.4) * draw.gauss()
            length = MEAN * math.exp(SPREAD * deviate - SPREAD**2 / 2)
            tokens = min(LONGEST, max(1, round(length)))
            found.append(Request(prompt, (), tokens, 1.0, seed=1000 * problem + sample))
    return found


def settings(folder: str) -> EngineSettings:
    """Engines that nothing but the length ends."""
    return engine_settings(folder, max_model_tokens=512, max_sequences=SLOTS, stop_token_ids=())


def timed(name: str, asked: Sequence[Request], work: Callable[[], object], **more: object) -> float:
    """Print tokens a second of some work; returns its seconds."""
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    tokens = sum(one.max_response_tokens for one in asked)
    figure = {"tokens_per_s": round(tokens / seconds, 1), "seconds": round(seconds, 2)}
    print(json.dumps({"what": name, **figure, **more}), flush=True)
    return seconds


def bare(engine: Engine, asked: Sequence[Request]) -> None:
    """vLLM's own loop."""
    vllm = engine.llm.llm_engine
    for number, one in enumerate(asked):
        vllm.add_request(str(number), engine._prompt(one, {}), engine._sampling(one))
    while vllm.has_unfinished_requests():
        vllm.step()


def one_engine(folder: str, rounds: int) -> None:
    """Our engine against bare vLLM, in turns."""
    engine, asked = Engine(settings(folder)), requests()
    engine.warm_up()
    for turn in range(rounds):
        timed("bare vLLM", asked, lambda: bare(engine, asked), turn=turn)
        engine.forget()
        timed("engine", asked, lambda: engine.generate(asked, {}), turn=turn)
        engine.forget()


def many_engines(folder: str, engines: int, rounds: int) -> None:
    """Engines in actors: shares dealt beforehand, against requests as there is room."""
    import ray

    from rollouts.pool import Patience, RolloutPool
    from thinking_rl.cluster.devices import cluster
    from thinking_rl.cluster.placement import Placement
    from thinking_rl.model.image_store import ImageStore
    from thinking_rl.model.processing import load_processor

    images = ImageStore(load_processor(folder).image_processor, share=ray.put)
    with cluster(Placement(engines=engines)) as devices:
        pool = RolloutPool(
            replace(settings(folder), threads=devices.threads),
            devices.engines,
            images,
            patience=Patience(600, 120, 600),
            dealing="free",
        )
        asked = requests()
        for turn in range(rounds):
            seconds = [0.0] * engines

            def static(seconds: list[float] = seconds) -> None:
                started = time.perf_counter()
                calls = {
                    actor.answer.remote(asked[i::engines], {}): i
                    for i, actor in enumerate(pool.engines)
                }
                waiting = list(calls)
                while waiting:
                    (done,), waiting = ray.wait(waiting)
                    ray.get(done)
                    seconds[calls[done]] = time.perf_counter() - started

            whole = timed(f"{engines} engines, static", asked, static, turn=turn)
            idle = 1 - sum(seconds) / (engines * whole)
            print(json.dumps({"what": "static: idle at the barrier", "share": round(idle, 3)}))
            timed(f"{engines} engines, free", asked, lambda: pool.generate(asked), turn=turn)
        pool.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(folder)
        many_engines(folder, options.engines, options.rounds)
        one_engine(folder, options.rounds)


if __name__ == "__main__":
    main()
