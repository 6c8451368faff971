"""Sampling by the clock, one JSON line a figure: `python -m benchmarks.rollout`.

The small model with imposed, long-tailed lengths (lognormal, most of the spread the problem's own).
`--only engine`: bare vLLM and our engine on the same requests, in this process, by the clock and
by CPU time. `engines`: engines in actors, each with its share dealt beforehand in a call (static),
or with requests as it has room (free). `phases`: iterations that wait for the longest response, and
iterations that leave what is longer than a phase for later ones.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from benchmarks.agreement import engine_settings
from rollouts.engine import Engine, EngineSettings, Request
from rollouts.pool import Patience, RolloutPool
from rollouts.scheduler import Job
from thinking_rl.model.tiny import write_tiny

PROBLEMS, SAMPLES = 24, 8
MEAN, SPREAD, LONGEST = 60, 0.9, 400
"""Tokens; of the logarithm; tokens."""
SLOTS = 32
PHASE = 100
"""Tokens of one response in one iteration, where they are cut."""


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
    started, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    tokens = sum(one.max_response_tokens for one in asked)
    figure = {"tokens_per_s": round(tokens / seconds, 1), "seconds": round(seconds, 2)}
    figure["own_cpu_s"] = round(cpu, 2)
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


@contextmanager
def engines_in_actors(
    folder: str, engines: int, dealing: Literal["fixed", "free"]
) -> Iterator[RolloutPool]:
    """A pool of them."""
    import ray

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
            dealing=dealing,
        )
        yield pool
        pool.close()


def many_engines(folder: str, engines: int, rounds: int) -> None:
    """Shares dealt beforehand, against requests as there is room."""
    import ray

    asked = requests()
    with engines_in_actors(folder, engines, "free") as pool:
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
            print(json.dumps({"what": "static: idle", "share": round(idle, 3)}))
            pool.take_idle()
            whole = timed(
                f"{engines} engines, free", asked, lambda: pool.generate(asked), turn=turn
            )
            idle = sum(pool.take_idle()) / (engines * whole)
            print(json.dumps({"what": "free: idle", "share": round(idle, 3)}))


def phases(folder: str, engines: int, rounds: int, iterations: int) -> None:
    """Iterations that wait for all, and some cut at a phase: what can be trained, a second."""
    ways = (("waiting", LONGEST), ("partial", PHASE))
    with engines_in_actors(folder, engines, "free") as pool:
        for name, limit in ways * rounds:
            asked: dict[str, Request] = {}
            sampled: dict[str, tuple[int, ...]] = {}
            started = time.perf_counter()
            for iteration in range(iterations):
                asked |= {
                    f"{name} {iteration}/{number // SAMPLES}/{number}": one
                    for number, one in enumerate(requests(seed=iteration))
                }
                sample_phase(pool, asked, sampled, limit)
            seconds = time.perf_counter() - started
            going_on = {group_of(key) for key in asked if not is_done(key, asked, sampled)}
            trained = [one for key, one in sampled.items() if group_of(key) not in going_on]
            figure = {
                "trained_tokens_per_s": round(sum(map(len, trained)) / seconds, 1),
                "seconds": round(seconds, 1),
                "responses_trained": len(trained),
                "responses_sampled": len(asked),
            }
            print(json.dumps({"what": f"{engines} engines, {name}", **figure}), flush=True)


def sample_phase(
    pool: RolloutPool, asked: dict[str, Request], sampled: dict[str, tuple[int, ...]], limit: int
) -> None:
    """Go on with what is not done, by at most `limit` tokens each."""
    jobs = [
        Job(key, cut(one, sampled.get(key, ()), limit), group_of(key))
        for key, one in asked.items()
        if not is_done(key, asked, sampled)
    ]
    pool.submit(jobs)
    for job in pool.wait([job.name for job in jobs]):
        sampled[job.name] = sampled.get(job.name, ()) + job.completion().token_ids


def group_of(key: str) -> str:
    """The iteration and the problem of a response."""
    return key.rpartition("/")[0]


def is_done(key: str, asked: dict[str, Request], sampled: dict[str, tuple[int, ...]]) -> bool:
    """Whether a response has its length."""
    return len(sampled.get(key, ())) >= asked[key].max_response_tokens


def cut(one: Request, done: tuple[int, ...], limit: int) -> Request:
    """What a phase asks for of a response."""
    left = one.max_response_tokens - len(done)
    return replace(one, sampled_ids=done, max_response_tokens=min(left, limit))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--only", choices=["engine", "engines", "phases"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(folder)
        if options.only in (None, "engines"):
            many_engines(folder, options.engines, options.rounds)
        if options.only in (None, "phases"):
            phases(folder, options.engines, options.rounds, options.iterations)
        if options.only in (None, "engine"):
            one_engine(folder, options.rounds)


if __name__ == "__main__":
    main()
