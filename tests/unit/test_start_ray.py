"""Ray on a machine that does much else."""

from __future__ import annotations

import pytest
import ray

from thinking_rl.cluster.devices import START_TRIES, start_ray

SLOW = "The current node timed out during startup. This could happen because ..."


@pytest.mark.parametrize(
    ("failures", "message", "tries"),
    [
        (0, SLOW, 1),
        (START_TRIES - 1, SLOW, START_TRIES),
        (START_TRIES, SLOW, START_TRIES),
        (1, "no room in /dev/shm", 1),
    ],
)
def test_a_slow_start_is_tried_again(
    failures: int, message: str, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def init(**given: object) -> str:
        asked.append(given["address"])
        if len(asked) <= failures:
            raise Exception(message)
        return "context"

    monkeypatch.setattr(ray, "init", init)
    if tries > failures:
        assert start_ray(None) == "context"
    else:
        with pytest.raises(Exception, match=message.split()[0]):
            start_ray(None)
    assert asked == ["local"] * tries
