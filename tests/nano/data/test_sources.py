"""The mixture: what is drawn, how often, and always the same from the same seed."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.coco_folder import content, make_cutouts, make_folder
from lisa.errors import DataError
from lisa.nano.data import sources
from lisa.nano.data.sketches import SKETCHES
from lisa.nano.data.sources import ANYWHERE, SKETCHED, SOURCES, Photos
from lisa.nano.data.text_files import text_file


def renamed(**names: str) -> dict[str, object]:
    """The annotations of the tiny folder with other names."""
    text = json.dumps(content())
    for old, new in names.items():
        text = text.replace(f'"name": "{old}"', f'"name": "{new}"')
    return json.loads(text)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources and cut-outs."""
    root = tmp_path_factory.mktemp("data")
    make_folder(root / "photos" / "coco_union")
    make_folder(root / "photos" / "dogcat_via", renamed(cup="bowl"))
    make_folder(root / "photos" / "tools_seg", renamed(cat="plane", dog="saw", cup="hand"))
    make_cutouts(root / "photos" / "stamps")
    return root


# Sources


def test_the_table_is_sound() -> None:
    assert all(source.weight > 0 and source.licence for source in SOURCES.values())
    for name, source in SOURCES.items():
        assert set(source.elsewhere) <= SOURCES.keys() - {name}
    assert not {"camvid", "bsds500"} & SOURCES.keys()  # non-commercial
    assert not SOURCES["car_parts"].mirror  # "left door" is the car's own left


def test_the_sources_that_are_there_are_opened_in_the_order_of_the_table(root: Path) -> None:
    photos = Photos(root)
    assert list(photos.folders) == ["coco_union", "tools_seg", "dogcat_via"]
    photographed = {"bowl", "cat", "cup", "dog", "hand", "plane", "saw"}
    assert photos.names == sorted(
        {*photographed, "handsaw", "plate", *SKETCHES}
    )  # and what is pasted
    assert [folder.exhaustive for folder in photos.folders.values()] == [True, True, False]
    assert len(photos.cutouts) == 1


def test_the_held_out_part_and_the_rest_share_no_photograph(root: Path) -> None:
    train, held_out = Photos(root), Photos(root, "held-out")
    for name in train.folders:
        parts = [train.folders[name].images, held_out.folders[name].images]
        files = [{image["file_name"] for image in part} for part in parts]
        assert files == [{"b.png", "c.png"}, {"a.png"}]


def test_sources_are_drawn_by_weight(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = Photos(root)
    drawn: Counter[str] = Counter()
    for name, folder in photos.folders.items():
        folder.names = {number: name for number in folder.names}
    monkeypatch.setattr(sources, "augment", lambda scene, random, **_: scene)
    monkeypatch.setattr(sources, "COMPOSITE_SHARE", 0.0)
    for seed in range(600):
        drawn[photos.draw(np.random.default_rng(seed), 48).names[0]] += 1
    weights = np.array([SOURCES[name].weight for name in photos.folders])
    shares = [drawn[name] / 600 for name in photos.folders]
    assert shares == pytest.approx((weights / weights.sum()).tolist(), abs=0.06)
    assert photos.weights.sum() == pytest.approx(1)


def test_names_of_quite_other_photographs(root: Path) -> None:
    photos = Photos(root)
    assert photos.elsewhere("coco_union") == ("plane", "saw")  # a hand may be anywhere
    assert photos.elsewhere("dogcat_via") == ("plane", "saw")
    assert photos.elsewhere("tools_seg") == ()
    assert "hand" in ANYWHERE


def test_a_scene_knows_what_is_elsewhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "COMPOSITE_SHARE", 0.0)
    photos = Photos(root)
    scenes = [photos.draw(np.random.default_rng(seed), 48) for seed in range(20)]
    assert {scene.elsewhere for scene in scenes} == {("plane", "saw"), ()}
    assert all(scene.image.shape == (48, 48, 3) for scene in scenes)


def test_cutouts_are_pasted_on_some_views(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "COMPOSITE_SHARE", 0.0)
    photos = Photos(root)
    scenes = [photos.draw(np.random.default_rng(seed), 48) for seed in range(200)]
    assert 0.15 < np.mean(["plate" in scene.names for scene in scenes]) < 0.35


def test_composite_scenes_may_be_larger_than_the_view(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "COMPOSITE_SHARE", 1.0)
    photos, sides = Photos(root), []
    composer = photos.composer
    assert composer is not None
    draw = composer.draw
    monkeypatch.setattr(
        composer, "draw", lambda random, side: sides.append(side) or draw(random, side)
    )
    views = [photos.draw(np.random.default_rng(seed), 48, 1.5) for seed in range(12)]
    assert {view.image.shape for view in views} == {(48, 48, 3)}
    assert min(sides) >= 48 and 64 < max(sides) <= 72


def test_a_share_of_the_views_is_composed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = Photos(root)
    assert photos.composer is not None
    assert photos.composer.names == sorted(["cup", "dog", "hand", "handsaw", "plate", *SKETCHES])
    monkeypatch.setattr(sources, "augment", lambda *parts, **settings: "a view")
    drawn = [photos.draw(np.random.default_rng(seed), 48) for seed in range(300)]
    assert 0.17 < sum(scene != "a view" for scene in drawn) / 300 < 0.33


def test_sources_are_all_folders_that_views_are_made_of(root: Path) -> None:
    assert Photos(root).sources == [*("coco_union", "tools_seg", "dogcat_via", "stamps", SKETCHED)]


def test_a_folder_without_photographs_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos" / "unknown").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no photographs under '.*photos'; .* coco_union, "):
        Photos(tmp_path)


def test_a_source_without_a_photograph_in_the_part_is_named(tmp_path: Path) -> None:
    annotations = content()
    annotations["images"] = annotations["images"][-1:]
    annotations["annotations"] = []
    make_folder(tmp_path / "photos" / "ccp", annotations)
    assert list(Photos(tmp_path, "held-out").folders) == ["ccp"]
    with pytest.raises(DataError, match=r"no photograph of '.*ccp' is in the part 'train'"):
        Photos(tmp_path)


def test_a_malformed_source_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos" / "ccp", {"categories": [{"id": 1}]})
    with pytest.raises(DataError, match=r"category 0 of '.*ccp.annotations\.json'"):
        Photos(tmp_path)


# Outlines that were drawn for photographs without masks


@pytest.fixture
def outlined(root: Path, tmp_path: Path) -> Path:
    """Beside the other sources one with a photograph that there are outlines for, and another."""
    drawn = json.loads(
        text_file("outlines", "imagelevel_imagenet1000.json").read_text(encoding="utf-8")
    )
    known = drawn["images"][0]
    folder = tmp_path / "photos" / "imagelevel_imagenet1000"
    (folder / "images").mkdir(parents=True)
    for name in (known["file_name"], "unknown.jpg"):
        Image.new("RGB", (known["width"], known["height"])).save(folder / "images" / name)
    (folder / "annotations.json").write_text('{"images": []}')
    make_folder(tmp_path / "photos" / "coco_union")
    return tmp_path


def test_outlines_stand_for_the_masks_that_a_source_lacks(outlined: Path) -> None:
    folder = Photos(outlined, "all").folders["imagelevel_imagenet1000"]
    (scene,) = [folder[index] for index in range(len(folder))]  # the unknown one is left out
    assert scene.regions and all(region.mask.any() for region in scene.regions)
    assert scene.regions[0].mask.shape == scene.image.shape[:2]


def test_a_source_without_a_photograph_that_was_outlined_is_no_source(outlined: Path) -> None:
    for path in (outlined / "photos" / "imagelevel_imagenet1000" / "images").iterdir():
        path.rename(path.with_name(f"another {path.name}"))
    assert list(Photos(outlined).folders) == ["coco_union"]


def test_rarely_outlined_names_are_not_on_the_other_photographs(outlined: Path) -> None:
    photos = Photos(outlined, "all")
    elsewhere = photos.elsewhere("imagelevel_imagenet1000")
    assert "accordion" in elsewhere or len(elsewhere) > 20
    assert not {"sky", "person"} & set(elsewhere)  # often outlined, and often not
