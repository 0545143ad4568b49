import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mien.errors import InputError
from mien.evaluation import cfp, ijb, lfw, protocols, wider
from mien.evaluation.vectors import Vectors

Touch = Callable[..., Path]


# ------------------------------------------------------------------------------------ pair tables


@pytest.fixture
def table(touch: Touch) -> Callable[[str], Path]:
    """A table beside pictures a.jpg .. f.jpg."""
    for name in "abcdef":
        touch(f"{name}.jpg")
    return lambda text: touch("pairs.csv", text)


def test_pairs_of_a_table(table: Callable[[str], Path]) -> None:
    pairs = protocols.read_pairs_csv(
        table(
            "\ufefffile1,file2,same,fold,Age,\n"
            "a.jpg,b.jpg,1,x,young,\n"
            "\n"
            ",,,,,\n"
            " b.jpg , c.jpg ,yes,x,old\n"
            "a.jpg,d.jpg,0,y,old,\n"
            "e.jpg,f.jpg,Genuine,y,young\n"
            "c.jpg,e.jpg,false,y,young\n"
        )
    )
    assert [pairs.pictures[i].name for i in pairs.a] == [f"{n}.jpg" for n in "abaec"]
    assert pairs.same.tolist() == [True, True, False, True, False]
    assert pairs.fold is not None
    assert pairs.fold.tolist() == [0, 0, 1, 1, 1]
    assert pairs.columns == {"age": ("young", "old", "old", "young", "young")}
    # a, b and c are one person by way of b; d is alone; e and f are another
    person = {*zip(pairs.a.tolist(), pairs.person_a.tolist(), strict=True)}
    person |= {*zip(pairs.b.tolist(), pairs.person_b.tolist(), strict=True)}
    numbers = dict(person)
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]
    assert len(set(numbers.values())) == 3


def test_people_may_be_named(table: Callable[[str], Path]) -> None:
    pairs = protocols.read_pairs_csv(
        table("file1,file2,same,person1,person2\na.jpg,b.jpg,1,x,x\nc.jpg,d.jpg,0,x,y\n")
    )
    assert pairs.person_a.tolist() == [0, 0]
    assert pairs.person_b.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("file1,same\na,1\n", "line 1: no column 'file2'"),
        ("file1,file2,same,same\n", "line 1: two columns are called 'same'"),
        ("file1,file2,same\na.jpg,b.jpg,1\na.jpg,none.jpg,0\n", "line 3: the picture .*none.jpg"),
        ("file1,file2,same\na.jpg,b.jpg,1\n\na.jpg,d.jpg,maybe\n", "line 4: same is 'maybe'"),
        ("file1,file2,same\na.jpg,b.jpg,\n", "line 2: same is empty"),
        ("file1,file2,same\na.jpg,b.jpg,1,2,3\n", "line 2: 5 cells where the header has 3"),
        ('file1,file2,same\na.jpg,"b.jpg,1\n', "line 2: "),
        ("file1,file2,same,fold\na.jpg,b.jpg,1,\n", "line 2: the fold is missing"),
        ("file1,file2,same\na.jpg,b.jpg,1\nc.jpg,d.jpg,1\n", "only genuine pairs"),
        ("file1,file2,same\na.jpg,b.jpg,0\n", "only impostor pairs"),
        ("file1,file2,same\n", "has no pairs"),
        ("file1,file2,same\na.jpg,b.jpg,1\nb.jpg,c.jpg,1\nc.jpg,a.jpg,0\n", "line 4: this pair is"),
        (
            "file1,file2,same,person1,person2\na.jpg,b.jpg,1,x,y\n",
            "line 2: same is '1' but the people say otherwise",
        ),
    ],
)
def test_a_bad_table_names_its_line(table: Callable[[str], Path], text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        protocols.read_pairs_csv(table(text))


def test_a_table_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\xfe\x00\x00file1")
    with pytest.raises(InputError, match="not UTF-8"):
        protocols.read_pairs_csv(path)
    with pytest.raises(InputError, match="cannot read"):
        protocols.read_pairs_csv(tmp_path / "none.csv")


# ---------------------------------------------------------------------------------------- folders


@pytest.fixture
def people(touch: Touch, tmp_path: Path) -> protocols.People:
    for person, count in (("ada", 5), ("bob", 3), ("cy", 1), ("di", 2)):
        for number in range(count):
            touch(f"people/{person}/{number}.jpg")
    touch("people/empty/readme.txt")
    return protocols.read_people(tmp_path / "people")


def test_a_folder_a_person(people: protocols.People) -> None:
    assert people.names == ("ada", "bob", "cy", "di")
    assert np.bincount(people.person).tolist() == [5, 3, 1, 2]
    assert people.pictures[5].name == "bob/0.jpg"


def test_drawn_pairs_are_right_distinct_and_reproducible(people: protocols.People) -> None:
    pairs = protocols.draw_pairs(people, 10, seed=4)
    again = protocols.draw_pairs(people, 10, seed=4)
    assert np.array_equal(pairs.a, again.a)
    assert np.array_equal(pairs.b, again.b)
    assert not np.array_equal(pairs.a, protocols.draw_pairs(people, 10, seed=5).a)
    assert np.array_equal(people.person[pairs.a] == people.person[pairs.b], pairs.same)
    assert (pairs.a != pairs.b).all()
    assert len({frozenset(p) for p in zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)}) == 20


def test_all_pairs_are_drawn_when_there_are_no_more(people: protocols.People) -> None:
    pairs = protocols.draw_pairs(people, 1000)
    assert pairs.same.sum() == 10 + 3 + 1
    assert (~pairs.same).sum() == 55 - 14


def test_folders_that_cannot_be_used(touch: Touch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        protocols.read_people(tmp_path / "none")
    touch("one/ada/1.jpg")
    with pytest.raises(InputError, match="1 people"):
        protocols.read_people(tmp_path / "one")
    touch("one/bob/1.jpg")
    with pytest.raises(InputError, match="nobody in one has two pictures"):
        protocols.draw_pairs(protocols.read_people(tmp_path / "one"))


def test_some_of_the_people(people: protocols.People, touch: Touch) -> None:
    names = protocols.read_names(touch("names.txt", "2\ndi\t2\nbob\t3\n\n"))
    some = protocols.only(people, names, "names")
    assert some.names == ("di", "bob")
    assert [p.name for p in some.pictures] == ["bob/0.jpg", "bob/1.jpg", "bob/2.jpg", "di/0.jpg",
                                               "di/1.jpg"]  # fmt: skip
    assert some.person.tolist() == [1, 1, 1, 0, 0]
    with pytest.raises(InputError, match="names 'eve'"):
        protocols.only(people, ["eve"], "list")


def test_halves_share_nobody(people: protocols.People) -> None:
    first, second = protocols.halves(people)
    assert sorted(first.names + second.names) == sorted(people.names)
    assert len(first.pictures) + len(second.pictures) == len(people.pictures)


# -------------------------------------------------------------------------------------------- LFW


@pytest.fixture
def small_lfw(touch: Touch, tmp_path: Path) -> Path:
    for person, count in (("Al_A", 3), ("Bo_B", 2), ("Cy_C", 2), ("Di_D", 1)):
        for number in range(1, count + 1):
            touch(f"lfw/pictures/{person}/{person}_{number:04d}.jpg")
    return tmp_path / "lfw"


TEXT = "2\t1\nAl_A\t1\t3\nBo_B\t2\tCy_C\t1\nBo_B\t1\t2\nAl_A\t2\tDi_D\t1\n"
CSV = "name,imagenum1,imagenum2,\nAl_A,1,3,\nBo_B,2,Cy_C,1\nBo_B,1,2,\nAl_A,2,Di_D,1"


@pytest.mark.parametrize(("name", "text"), [("pairs.txt", TEXT), ("pairs.csv", CSV)])
def test_view_2(small_lfw: Path, touch: Touch, name: str, text: str) -> None:
    touch(f"lfw/{name}", text)
    pairs = lfw.view2(small_lfw)
    assert pairs.fold is not None
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.pictures[pairs.b[3]].name == "Di_D_0001.jpg"
    assert pairs.person_a.tolist() == [0, 1, 1, 0]


def test_view_1_as_text_and_as_csv(small_lfw: Path, touch: Touch) -> None:
    touch("lfw/matchpairsDevTest.csv", "name,imagenum1,imagenum2\nAl_A,1,3\nBo_B,1,2")
    touch("lfw/mismatchpairsDevTest.csv", "name,imagenum1,name,imagenum2\nAl_A,1,Cy_C,2\n,,,\n")
    rows = lfw.view1(small_lfw, "Test")
    assert rows.same.tolist() == [True, True, False]
    assert rows.fold is None
    touch("lfw/pairsDevTest.txt", "1\nAl_A\t1\t3\nAl_A\t1\tCy_C\t2\n")
    assert lfw.view1(small_lfw, "Test").same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TEXT.replace("2\t1\n", "3\t1\n", 1), "line 1: 3 x .* 2 genuine and 2 impostor"),
        (TEXT.replace("Bo_B\t1\t2\n", ""), "line 1: 2 x"),
        (TEXT.replace("Al_A\t1\t3", "Al_A\t1\t9"), "line 2: the picture .*Al_A_0009.jpg"),
        (TEXT.replace("Al_A\t1\t3", "Al_A\tone\t3"), "line 2: 'one' is not the number"),
        (TEXT.replace("Bo_B\t2\tCy_C\t1", "Bo_B\t2\tBo_B\t1"), "line 3: .* names Bo_B twice"),
        (TEXT.replace("Al_A\t1\t3", "Al_A"), "line 2: 1 cells"),
    ],
)
def test_a_bad_lfw_list_names_its_line(
    small_lfw: Path, touch: Touch, text: str, problem: str
) -> None:
    touch("lfw/pairs.txt", text)
    with pytest.raises(InputError, match=problem):
        lfw.view2(small_lfw)


def test_lfw_that_is_not_there(tmp_path: Path, touch: Touch, small_lfw: Path) -> None:
    with pytest.raises(InputError, match=r"no pairs\.txt and no pairs\.csv"):
        lfw.view2(small_lfw)
    with pytest.raises(InputError, match=r"neither pairsDevTest\.txt"):
        lfw.view1(small_lfw, "Test")
    touch("bare/pairs.txt", TEXT)
    with pytest.raises(InputError, match="holds no LFW pictures"):
        lfw.view2(tmp_path / "bare")


def test_the_official_lists(lfw_data: Path, tmp_path: Path) -> None:
    pairs = lfw.view2(lfw_data)
    assert len(pairs) == 6000
    assert pairs.fold is not None
    assert np.bincount(pairs.fold).tolist() == [600] * 10
    assert len(pairs.pictures) == 7701
    parts = ("pairsDevTest", "pairsDevTrain")
    names = [f"{kind}{part}.csv" for part in parts for kind in ("match", "mismatch")]
    for name in ("pairs.csv", "peopleDevTrain.csv", *names):
        (tmp_path / name).write_bytes((lfw_data / name).read_bytes())
    (tmp_path / "lfw-deepfunneled").symlink_to(lfw_data / "lfw-deepfunneled")
    for theirs, ours in (
        (pairs, lfw.view2(tmp_path)),
        (lfw.view1(lfw_data, "Test"), lfw.view1(tmp_path, "Test")),
        (lfw.view1(lfw_data, "Train"), lfw.view1(tmp_path, "Train")),
    ):
        pictures = [
            [(p.pictures[i].name, p.pictures[j].name) for i, j in zip(p.a, p.b, strict=True)]
            for p in (theirs, ours)
        ]
        assert pictures[0] == pictures[1]
        assert np.array_equal(theirs.same, ours.same)
    assert len(lfw.album(tmp_path, "DevTrain").names) == 4038
    assert len(lfw.album(lfw_data, "DevTest").names) == 1711
    assert len(lfw.album(lfw_data).pictures) == 13233


# ---------------------------------------------------------------------------------- other formats


@pytest.fixture
def small_cfp(touch: Touch, tmp_path: Path) -> Path:
    lists: dict[str, list[str]] = {"F": [], "P": []}
    for person in (1, 2):
        for side, kind, count in (("F", "frontal", 2), ("P", "profile", 1)):
            for number in range(1, count + 1):
                name = f"Data/Images/{person:03d}/{kind}/{number:02d}.jpg"
                touch(f"cfp/{name}")
                lists[side].append(f"{len(lists[side]) + 1} ../{name}")
    for side, lines in lists.items():
        touch(f"cfp/Protocol/Pair_list_{side}.txt", "\n".join(lines) + "\n")
    for fold in ("01", "02"):
        touch(f"cfp/Protocol/Split/FP/{fold}/same.txt", "1,1\n3,2\n")
        touch(f"cfp/Protocol/Split/FP/{fold}/diff.txt", "1,2\n\n")
        touch(f"cfp/Protocol/Split/FF/{fold}/same.txt", "1,2\n")
        touch(f"cfp/Protocol/Split/FF/{fold}/diff.txt", "1,3\n")
    return tmp_path / "cfp"


def test_cfp(small_cfp: Path) -> None:
    profile = cfp.read_cfp(small_cfp, "FP")
    assert profile.same.tolist() == [True, True, False] * 2
    assert profile.fold is not None
    assert profile.fold.tolist() == [0, 0, 0, 1, 1, 1]
    assert profile.pictures[profile.b[1]].name == "002/profile/01.jpg"
    assert cfp.read_cfp(small_cfp, "FF").same.tolist() == [True, False] * 2


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("Split/FP/02/diff.txt", "1,2\n1,9\n", r"02/diff.txt, line 2: '1,9'"),
        ("Split/FP/02/diff.txt", "1,2,3\n", "line 1: '1,2,3'"),
        ("Split/FP/02/diff.txt", "1,1\n", "do not belong in diff.txt"),
        ("Pair_list_P.txt", "1 ../Data/none.jpg\n", "Pair_list_P.txt, line 1: the picture"),
        ("Pair_list_P.txt", "1\n", "line 1: a line has a number and a file"),
    ],
)
def test_a_bad_cfp_names_its_line(
    small_cfp: Path, touch: Touch, file: str, text: str, problem: str
) -> None:
    touch(f"cfp/Protocol/{file}", text)
    with pytest.raises(InputError, match=problem):
        cfp.read_cfp(small_cfp, "FP")


def test_cfp_without_folds(tmp_path: Path, touch: Touch) -> None:
    touch("Protocol/Pair_list_F.txt")
    touch("Protocol/Pair_list_P.txt")
    with pytest.raises(InputError, match="holds no folds"):
        cfp.read_cfp(tmp_path, "FP")


def test_templates_average_media_first(touch: Touch, tmp_path: Path) -> None:
    for n in range(5):
        touch(f"img/{n}.jpg")
    media = touch("media.txt", "0.jpg 1 7\n1.jpg 1 7\n2.jpg 1 8\n3.jpg 2 7\n4.jpg 3 1\n")
    pairs = touch("label.txt", "1 2 1\n1 3 0\n")
    protocol = ijb.read_templates(media, pairs, tmp_path / "img")
    rows = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    fused = ijb.fuse(protocol, Vectors(rows, {4: "no face"}, "c", 5))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(fused, [[half, half, 0], [0, 1, 0], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(ijb.template_scores(protocol, fused), [half, -1])
    as_pairs = ijb.as_pairs(protocol)
    assert (as_pairs.person_a == as_pairs.person_b).tolist() == [True, False]


@pytest.mark.parametrize(
    ("media", "pairs", "problem"),
    [
        ("0.jpg 1\n", "", "media.txt, line 1: 2 cells"),
        ("9.jpg 1 1\n", "", "media.txt, line 1: the picture"),
        ("0.jpg 1 1\n", "1 2 1\n", "label.txt, line 1: template 2 has no pictures"),
        ("0.jpg 1 1\n0.jpg 2 1\n", "1 2 2\n", "label.txt, line 1: a line has two templates"),
        ("0.jpg 1 1\n0.jpg 2 1\n", "1 2 1\n", "only genuine"),
    ],
)
def test_bad_templates_name_their_line(
    touch: Touch, tmp_path: Path, media: str, pairs: str, problem: str
) -> None:
    touch("img/0.jpg")
    with pytest.raises(InputError, match=problem):
        ijb.read_templates(touch("media.txt", media), touch("label.txt", pairs), tmp_path / "img")


def test_wider_annotations(touch: Touch, tmp_path: Path) -> None:
    touch("images/a/1.jpg")
    touch("images/a/2.jpg")
    path = touch(
        "bbx_gt.txt",
        "a/1.jpg\n3\n10 20 30 40 0 0 0 0 0 0 \n1 2 3 4 0 0 0 1 0 0\n5 5 0 9 0 0 0 0 0 0\n"
        "a/2.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n",
    )
    first, second = wider.read_wider(path, tmp_path / "images")
    assert first.boxes[0].tolist() == [9.5, 19.5, 39.5, 59.5]
    assert first.counts.tolist() == [True, False, False]
    assert len(second.boxes) == 0
    assert wider.levels(tmp_path, [first, second]) == {"all": [first, second]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("b/1.jpg\n1\n1 2 3 4\n", "line 1: the picture"),
        ("a/1.jpg\n", "line 2: the number of boxes"),
        ("a/1.jpg\n2\n1 2 3 4\n", "line 4: a box"),
        ("a/1.jpg\n1\n1 2 3\n", "line 3: a box"),
        ("a/1.jpg\n1\n1 2 x 4\n", "line 3: a box"),
        ("a/1.jpg\n0\n", "has no faces"),
    ],
)
def test_bad_annotations_name_their_line(
    touch: Touch, tmp_path: Path, text: str, problem: str
) -> None:
    touch("images/a/1.jpg")
    with pytest.raises(InputError, match=problem):
        wider.read_wider(touch("x_bbx_gt.txt", text), tmp_path / "images")


def test_levels_of_wider(touch: Touch, tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    touch("images/a/1.jpg")
    path = touch("bbx_gt.txt", "a/1.jpg\n2\n10 20 30 40\n1 2 3 4\n")
    scenes = wider.read_wider(path, tmp_path / "images")

    def cell(*items: object) -> np.ndarray:
        array = np.empty((len(items), 1), object)
        for row, item in enumerate(items):
            array[row, 0] = item
        return array

    def save(index: list[int], name: str = "1") -> None:
        io.savemat(
            tmp_path / "wider_hard_val.mat",
            {
                "event_list": cell("a"),
                "file_list": cell(cell(name)),
                "gt_list": cell(cell(np.array(index)[:, None])),
            },
        )

    save([2])
    (hard,) = wider.levels(tmp_path, scenes)["hard"]
    assert hard.counts.tolist() == [False, True]
    save([3])
    with pytest.raises(InputError, match=r"1\.jpg has no face 3"):
        wider.levels(tmp_path, scenes)
    save([1], "other")
    with pytest.raises(InputError, match=re.escape("does not list a/1.jpg")):
        wider.levels(tmp_path, scenes)
    touch("wider_hard_val.mat", "not matlab at all")
    with pytest.raises(InputError, match="not a list of WIDER FACE"):
        wider.levels(tmp_path, scenes)
