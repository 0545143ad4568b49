"""What stands in a batch, and how its crops are changed."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.errors import InputError
from mien.training import augmentation, sampling
from mien.training.config import Augmentation, Data, Input, Sampling
from mien.training.dataset import Examples, read_pairs, read_people, select
from mien.training.preparation.pack import Packed

STRONG = Augmentation(
    rotation=20, shift=0.1, scale=0.2, stretch=0.1, brightness=0.2, contrast=0.3, grey=0.3,
    low_resolution=0.5, blur=0.5, occlusion=0.5,
)  # fmt: skip


@pytest.fixture
def crowd() -> Examples:
    sizes = [1, 2, 7, 3, 1, 9]
    labels = np.repeat(np.arange(6), sizes)
    return Examples(np.arange(len(labels)) + 100, labels, tuple("abcdef"))


def test_an_epoch_shows_every_crop_once(crowd: Examples) -> None:
    plan = sampling.plan(Sampling(batch=5), crowd, None, 0, 0)
    assert plan.shape == (4, 5)
    assert len(set(plan.ravel().tolist())) == 20
    again = sampling.plan(Sampling(batch=5), crowd, None, 0, 0)
    other = sampling.plan(Sampling(batch=5), crowd, None, 0, 1)
    assert np.array_equal(plan, again)
    assert not np.array_equal(plan, other)


def test_by_people_each_has_up_to_so_many_crops_side_by_side(crowd: Examples) -> None:
    plan = sampling.plan(Sampling("people", batch=2, pictures=3), crowd, None, 4, 0).ravel()
    labels = crowd.labels[plan]
    assert Counter(labels.tolist()) == {0: 1, 1: 2, 2: 3, 3: 3, 4: 1, 5: 3} or len(plan) % 2 == 0
    changes = int((np.diff(labels) != 0).sum()) + 1
    assert changes == len(set(labels.tolist()))
    assert len(set(plan.tolist())) == len(plan)


def test_by_people_there_are_as_many_passes_as_crops_for_them() -> None:
    labels = np.repeat(np.arange(3), 40)
    few = Examples(np.arange(120), labels, tuple("abc"))
    plan = sampling.plan(Sampling("people", batch=12, pictures=4), few, None, 0, 0)
    assert plan.shape == (10, 12)
    for batch in few.labels[plan]:
        assert Counter(batch.tolist()) == {0: 4, 1: 4, 2: 4}


def test_pairs_stay_together(crowd: Examples) -> None:
    groups = np.array([[0, 1], [2, 3], [4, 5], [6, 7]])
    plan = sampling.plan(Sampling("pairs", batch=4, file="f"), crowd, groups, 0, 0)
    rows = {tuple(row) for row in plan.reshape(-1, 2).tolist()}
    assert rows == {(0, 1), (2, 3), (4, 5), (6, 7)}


def test_too_large_a_batch_is_refused(crowd: Examples) -> None:
    with pytest.raises(InputError, match="23 crops and does not fill one batch of 64"):
        sampling.plan(Sampling(), crowd, None, 0, 0)


def test_people_are_chosen_by_lists_and_numbers(packed: Packed, tmp_path: Path) -> None:
    names = tmp_path / "people.txt"
    names.write_text("3\neileen\t6\ngrace\t6\neileen-dim\t6\n", encoding="utf-8")
    assert read_people(names) == ("eileen", "grace", "eileen-dim")
    without = tmp_path / "without.txt"
    without.write_text("grace\n", encoding="utf-8")
    config = Data("", str(names), str(without), max_pictures=4)
    found = select(packed, config, 0)
    assert found.people == ("eileen", "eileen-dim")
    assert np.bincount(found.labels).tolist() == [4, 4]
    assert {packed.rows[row].subject for row in found.rows} == {"eileen", "eileen-dim"}
    with pytest.raises(InputError, match="a network learns from two people at least"):
        select(packed, replace(config, min_pictures=7), 0)


def test_pairs_name_crops_by_source_or_number(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("file1,file2,same\neileen/0.png,1,1\neileen/0.png,grace/2.png,0\n")
    pairs, rows = read_pairs(path, packed)
    assert [packed.rows[rows[i]].source for i in (*pairs.a, *pairs.b)] == [
        "eileen/0.png", "eileen/0.png", "eileen/1.png", "grace/2.png",
    ]  # fmt: skip
    assert pairs.same.tolist() == [True, False]
    path.write_text("file1,file2,same\neileen/0.png,nobody.png,1\n")
    with pytest.raises(InputError, match=r"line 2: the packed set has no crop 'nobody.png'"):
        read_pairs(path, packed)
    path.write_text("file1,file2,same\neileen/0.png,1,perhaps\n")
    with pytest.raises(InputError, match="line 2: same is 'perhaps'"):
        read_pairs(path, packed)


# ------------------------------------------------------------------------------------ augmentation


def faces(packed: Packed, count: int = 6) -> torch.Tensor:
    return torch.from_numpy(packed.pixels[:count].copy())


def test_unchanged_faces_are_the_crop_itself(packed: Packed) -> None:
    pixels = faces(packed)
    shape = Input(48, 1.0)
    same = augmentation.apply(pixels, augmentation.unchanged(shape, 6), 48)
    expected = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.allclose(same, expected, atol=1e-5)
    mirrored = augmentation.apply(pixels, augmentation.unchanged(shape, 6, mirror=True), 48)
    assert torch.allclose(mirrored, expected.flip(3), atol=1e-5)


def test_the_middle_of_the_crop_is_what_a_smaller_input_sees(packed: Packed) -> None:
    pixels = faces(packed)
    middle = augmentation.apply(pixels, augmentation.unchanged(Input(24, 0.5), 6), 24)
    expected = pixels[:, 12:36, 12:36].permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.allclose(middle, expected, atol=1e-5)


def test_a_part_of_a_batch_is_changed_as_in_the_whole(packed: Packed) -> None:
    pixels, shape = faces(packed), Input(32, 0.9)
    changes = augmentation.draw(STRONG, shape, 6, torch.Generator().manual_seed(3))
    whole = augmentation.apply(pixels, changes, 32)
    part = augmentation.apply(pixels[2:4], changes.rows(slice(2, 4)), 32)
    assert torch.allclose(whole[2:4], part, atol=1e-6)
    assert whole.min() >= -1.001
    assert whole.max() <= 1.001


def test_each_change_changes_faces_and_stays_within_its_range(packed: Packed) -> None:
    pixels, shape = faces(packed), Input(48, 1.0)
    plain = augmentation.apply(pixels, augmentation.unchanged(shape, 6), 48)
    only = {
        "rotation": 20.0, "shift": 0.1, "scale": 0.2, "stretch": 0.2, "brightness": 0.3,
        "contrast": 0.4, "grey": 1.0, "low_resolution": 1.0, "blur": 1.0, "occlusion": 1.0,
    }  # fmt: skip
    for name, amount in only.items():
        config = replace(Augmentation(flip=False), **{name: amount})
        changes = augmentation.draw(config, shape, 6, torch.Generator().manual_seed(1))
        moved = augmentation.apply(pixels, changes, 48)
        assert (moved - plain).abs().mean() > 0.002, name
        assert torch.isfinite(moved).all()
    none = augmentation.draw(Augmentation(flip=False), shape, 6, torch.Generator())
    assert torch.equal(augmentation.apply(pixels, none, 48), plain)


def test_grey_faces_have_no_colour_and_hidden_parts_one(packed: Packed) -> None:
    pixels, shape = faces(packed), Input(48, 1.0)
    grey = augmentation.draw(Augmentation(grey=1.0), shape, 6, torch.Generator().manual_seed(1))
    moved = augmentation.apply(pixels, grey, 48)
    assert torch.allclose(moved[:, 0], moved[:, 2], atol=1e-5)
    hide = replace(Augmentation(flip=False), occlusion=1.0, occlusion_size=0.5)
    changes = augmentation.draw(hide, shape, 6, torch.Generator().manual_seed(1))
    hidden = augmentation.apply(pixels, changes, 48)
    for face, box, fill in zip(hidden, changes.box, changes.fill, strict=True):
        left, top, right, bottom = (box * 48).ceil().int().tolist()
        inside = face[:, top + 1 : bottom - 1, left + 1 : right - 1]
        assert torch.equal(inside, fill[:, None, None].expand_as(inside))
