"""Reading recipes: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinking_rl.recipe.load import RecipeError, _section_in, load_recipe, save_resolved
from thinking_rl.recipe.rl import PRESETS, RL, Loss
from thinking_rl.recipe.schema import Recipe
from thinking_rl.recipe.section import Section

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = """\
stages: [rl]
model: {path: tiny}
data:
  train: [{format: procedural}]
  eval: [{format: procedural, levels: [1]}]
rl:
  iterations: 2
  problems_per_iteration: 4
  tau: 0.1
  optimizer: {learning_rate: 1e-4}
rollout: {max_response_tokens: 32, max_model_tokens: 128}
learner: {tokens_per_microbatch: 512}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_defaults_and_run_dir(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.rl
    assert recipe.rl.optimizer.learning_rate == 1e-4  # which YAML 1.1 reads as text
    assert recipe.rl.optimizer.betas == (0.9, 0.95)
    assert recipe.rl.samples_per_problem == 8
    assert recipe.run_dir == "runs/mine"


def test_overrides_are_yaml_values_at_dotted_keys(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, GOOD),
        [
            "rl.iterations=7",
            "rl.tau=2e-1",
            "rl.optimizer.betas=[0.8, 0.9]",
            "rl.length.reward_weight=0.5",  # a section the file leaves out
            "data.eval.0.levels=[2, 3]",
            "data.instruction=a=b",
            "ray_address=null",
            "run_dir=/elsewhere",
            "data_dir=",
            "overwrite=true",
        ],
    )
    assert recipe.rl
    assert (recipe.rl.iterations, recipe.rl.tau) == (7, (0.2, 0.2))
    assert recipe.rl.optimizer.betas == (0.8, 0.9)
    assert recipe.rl.length.reward_weight == 0.5
    assert recipe.data.eval[0].levels == [2, 3]
    assert recipe.data.instruction == "a=b"
    assert recipe.ray_address is None
    assert (recipe.run_dir, recipe.data_dir, recipe.overwrite) == ("/elsewhere", "", True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  tau: 0.1\n", "", "mine.yaml: rl.tau: required, but missing"),
        ("iterations: 2", "iterations: two", "rl.iterations: expected a valid integer, not 'two'"),
        ("iterations: 2", "iterations: 2.5", "rl.iterations: expected a valid integer, not 2.5"),
        ("iterations: 2", "iterations: yes", "rl.iterations: expected a valid integer, not True"),
        ("iterations: 2", "iterations: 0", "expected greater than or equal to 1, not 0"),
        (
            "tau: 0.1",
            "tau: .nan",
            "rl.tau: expected a number above 0, or [first, last] of",
        ),
        ("path: tiny", "path: 7", "model.path: expected a valid string, not 7"),
        (
            "path: tiny",
            "path: tiny, dtype: fp16",
            "expected 'float32', 'bfloat16' or 'auto', not 'fp16'",
        ),
        (
            "  iterations",
            "  itertions",
            "rl.itertions: unknown key; the nearest valid one is 'iterations'",
        ),
        (
            "stages:",
            "max_sequences: 4\nstages:",
            "max_sequences: unknown key; the nearest valid one is 'rollout.max_sequences'",
        ),
        ("{path: tiny}", "{path: tiny, zzz: 1}", "model.zzz: unknown key; valid here: path, dtype"),
        ("levels: [1]", "lvels: [1]", "data.eval.0.lvels: unknown key; the nearest valid one is"),
        ("{path: tiny}", "tiny", "model: expected a section of `key: value` lines, not 'tiny'"),
        ("levels: [1]", "levels: [6]", "data.eval.0.levels.0: expected less than or equal to 5"),
        ("procedural}]", "gsm8k}]", "data.train.0: format gsm8k needs a `path`"),
        ("[rl]", "[sft, rl]", "stages lists 'sft': the recipe needs a section `sft:`"),
        ("32, max", "128, max", "max_response_tokens is 128: it must be below max_model_tokens"),
        ("tau: 0.1", "tau: 0.1\n  responses_per_step: 99", "an iteration has only 32 responses"),
        (
            "  tau: 0.1",
            "  tau: 0.1\n  tau: 0.2",
            "line 10: key 'tau' is given twice, first in line 9",
        ),
        ("[rl]", "[rl", "mine.yaml: line 2: "),
        (GOOD, "", "expected a mapping of keys to values"),
        (GOOD, "!!python/object:os.system {}", "could not determine a constructor"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, GOOD.replace(old, new, 1)))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rl.iterations", "'rl.iterations': an override looks like key=value"),
        ("rl.iterations=x", "expected a valid integer, not 'x' (given on the command line)"),
        ("rl.itertions=1", "unknown key; the nearest valid one is 'iterations' (given on the"),
        ("data.train.3.path=/x", "data.train.3.path: expected the number of an entry, 0 to 0"),
        ("seed.x=1", "seed.x: unknown key"),
        ("model.path.x=1", "override model.path.x: there is no 'x' in the value 'tiny'"),
        ("rl.tau=[1", "override 'rl.tau=[1': line 1: "),
    ],
)
def test_mistakes_in_overrides(tmp_path: Path, override: str, message: str) -> None:
    path = write(tmp_path, GOOD)
    if override.startswith("seed."):
        message = "seed: expected a valid integer, not {'x': 1}"
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [override])
    assert message in str(caught.value)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such recipe file"):
        load_recipe(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary\.yaml: not readable as YAML"):
        load_recipe(tmp_path / "binary.yaml")


def test_relative_paths_are_under_data_dir(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "train.jsonl").touch()
    text = GOOD.replace("[{format: procedural}]", "[{format: gsm8k, path: sub/train.jsonl}]")
    hub = "[{format: geometry3k, path: hiyouga/geometry3k}]"
    text = text.replace("[{format: procedural, levels: [1]}]", hub)
    path = write(tmp_path, text)
    with pytest.raises(RecipeError, match=r"data\.train\.0\.path: no such file.*data_dir=FOLDER"):
        load_recipe(path)
    recipe = load_recipe(path, [f"data_dir={tmp_path}"])
    assert recipe.data.train[0].path == str(tmp_path / "sub" / "train.jsonl")
    assert recipe.data.eval[0].path == "hiyouga/geometry3k"  # of the hub
    with pytest.raises(RecipeError, match=r"mine\.yaml: data_dir: no such folder: .*/none"):
        load_recipe(path, [f"data_dir={tmp_path}/none"])


def test_resolved_recipe_reads_back_unchanged(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["data.instruction='◁think▷: \"no\"'"])
    save_resolved(recipe, tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_recipes_cannot_be_changed(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    with pytest.raises(ValueError, match="frozen"):
        recipe.model.path = "other"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path, tmp_path: Path) -> None:
    for name in (
        "mathvision/train",
        "mathvision/testmini",
        "gsm8k/train",
        "gsm8k/test",
        "long_cot",
    ):
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert isinstance(load_recipe(path, [f"data_dir={tmp_path}"]), Recipe)


def rl_with(tmp_path: Path, *overrides: str) -> RL:
    recipe = load_recipe(write(tmp_path, GOOD), overrides)
    assert recipe.rl
    return recipe.rl


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_its_keys_and_nothing_else(tmp_path: Path, preset: str) -> None:
    plain, chosen = rl_with(tmp_path), rl_with(tmp_path, f"rl.loss.preset={preset}")
    assert chosen.model_copy(update={"loss": plain.loss}) == plain
    settings = chosen.loss.model_dump()
    expected = Loss.model_validate(PRESETS[preset]).model_dump() | {"preset": preset}
    assert settings == expected
    assert PRESETS[preset].keys() == Loss.model_fields.keys() - {"preset"}
    mine = rl_with(tmp_path, f"rl.loss.preset={preset}", "rl.loss.normalisation=response_length")
    assert mine.loss.model_dump() == settings | {"normalisation": "response_length"}


def test_a_preset_reads_back_unchanged(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["rl.loss.preset=k2.5", "rl.tau=[0.5, 0.1]"])
    save_resolved(recipe, tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe
    assert recipe.rl
    assert recipe.rl.tau == (0.5, 0.1)
    assert recipe.rl.loss.ratio_band == (0.5, 2.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.top_p=0.9"], "rollout.top_p is 0.9: RL would sample from another distribution"),
        (
            ["rollout.temperature=0.6", "rl.loss.ratio_band=[0.5, 2.0]"],
            "rollout.temperature is 0.6: the engines' log-probs are those of temperature 1, and "
            "rl.loss.ratio_band would compare",
        ),
        (["rollout.temperature=0.6", "rl.older_segments=train"], "rl.older_segments: train would"),
        (["rl.loss.ratio_band=[1.5, 2.0]"], "ratio_band is [1.5, 2.0]: expected two ratios around"),
        (["rl.tau=[0.5, 0.1, 0.2]"], "rl.tau: expected a number above 0, or [first, last] of two"),
        (["rl.tau=0"], "rl.tau: expected a number above 0"),
        (["rl.sampler.kind=prioritised"], "has no end: give rl.sampler.pool_problems"),
        (["rl.sampler.kind=curriculum"], "kind curriculum needs curriculum_iterations"),
        (["rl.sampler.curriculum_iterations=3"], "needs kind curriculum or prioritised"),
        (["rl.sampler.pool_problems=3"], "pool_problems is 3, but an iteration takes 4 different"),
        (["rl.length.overlong_tokens=32"], "overlong_tokens is 32: it must be below"),
    ],
)
def test_settings_that_do_not_go_together(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, GOOD), overrides)
    assert message in str(caught.value)


def test_the_learner_is_told_of_another_temperature(tmp_path: Path) -> None:
    """Alone it is no mistake: the learner divides its logits too."""
    assert (
        load_recipe(write(tmp_path, GOOD), ["rollout.temperature=0.6"]).rollout.temperature == 0.6
    )


def test_steps_are_planned_by_their_responses(tmp_path: Path) -> None:
    plain = rl_with(tmp_path)
    assert (plain.responses, plain.step_responses, plain.planned_steps) == (32, 8, 4)
    more = rl_with(tmp_path, "rl.responses_per_step=12", "rl.epochs=3")
    assert (more.step_responses, more.planned_steps) == (12, 6)


def keys_of(section: type[Section]) -> set[tuple[str, str]]:
    """Every key that is not a section itself, once for all places where its section stands."""
    keys: set[tuple[str, str]] = set()
    for name, field in section.model_fields.items():
        inner = _section_in(field.annotation)
        keys |= keys_of(inner) if inner else {(section.__name__, name)}
    return keys


def test_the_recipe_stays_small() -> None:
    assert 80 < len(keys_of(Recipe)) < 110
