"""Recipes: what is refused, what a setting changes, and that every recipe we ship can be read."""

from pathlib import Path

import pytest

from mien import networks
from mien.errors import InputError
from mien.training import objectives
from mien.training.config import Recipe, from_dict, parse, read_recipe, to_dict

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
SMALL = '[data]\nset = "s"\n[network]\nname = "resnet18"\n[[objectives]]\nname = "arcface"\n'


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 8


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_can_be_followed(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.network.name in networks.NAMES
    options = {"size": recipe.input.size, **recipe.network.options}
    if recipe.network.name in ("vgg19", "inception_resnet_v2"):
        return  # half a gigabyte each: their own tests build them
    networks.build(recipe.network.name, recipe.network.embedding_size, **options)
    for term in recipe.objectives:
        objectives.build(term.name, term.options, size=8, people=3, target=8)


def test_what_is_not_said_has_its_default_and_survives_being_kept() -> None:
    recipe = parse(SMALL, "small")
    assert recipe.sampling.batch == 64
    assert recipe.teacher is None
    assert recipe.objectives[0].options == {}
    assert from_dict(to_dict(recipe)) == recipe
    with_teacher = parse(SMALL + '[teacher]\npictures = "p"\nviews = 2\n', "small")
    assert with_teacher.teacher is not None
    assert with_teacher.teacher.views == 2
    assert from_dict(to_dict(with_teacher)) == with_teacher


def test_settings_change_one_value() -> None:
    changed = parse(
        SMALL, "small",
        ["run.epochs=3", "data.set=other", "objectives.0.weight=2", "optimiser.rate=1e-3",
         "network.options.dropout=0.5"],
    )  # fmt: skip
    assert changed.run.epochs == 3
    assert changed.data.set == "other"
    assert changed.objectives[0].weight == 2.0
    assert changed.optimiser.rate == 1e-3
    assert changed.network.options == {"dropout": 0.5}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALL + '[card]\nid = "my model"\n', "card.id: 'my model' is not a plain name"),
        (SMALL + "[run]\nepoch = 3\n", "run has the unknown key 'epoch'; there are: .*epochs"),
        (SMALL + '[run]\nepochs = "3"\n', "run: epochs is '3'; it must be a whole number"),
        (SMALL + "[run]\nepochs = 0\n", "run.epochs is at least 1"),
        (SMALL + "[run]\nepochs = true\n", "it must be a whole number"),
        (SMALL + '[run]\nprecision = "fp64"\n', "one of 'auto', 'bf16', 'fp32'"),
        (SMALL + '[sampling]\nkind = "pairs"\n', "needs sampling.file"),
        (SMALL + '[sampling]\nkind = "triplets"\nfile = "f"\n', "groups of 3"),
        (SMALL + "[input]\ncrop = 1.5\n", "input.crop"),
        ('[data]\nset = "s"\n[network]\nname = "resnet18"\n', "lacks 'objectives'"),
        (SMALL.replace('set = "s"', ""), "data lacks 'set'"),
        (SMALL + "[[[", "is not TOML"),
        (SMALL + "[optimiser]\nrate = nan\n", "optimiser.rate is above 0"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse(text, "wrong.toml")


@pytest.mark.parametrize("setting", ["run.epochs", "=3", "objectives.7.weight=1", "run.epochs.x=1"])
def test_a_wrong_setting_is_refused(setting: str) -> None:
    with pytest.raises(InputError):
        parse(SMALL + "[run]\nepochs = 1\n", "small", [setting])


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the recipe"):
        read_recipe(tmp_path / "none.toml")


def test_recipes_are_frozen() -> None:
    recipe: Recipe = parse(SMALL, "small")
    with pytest.raises(AttributeError):
        recipe.run.epochs = 5
