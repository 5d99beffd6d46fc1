from collections import Counter

import pytest

from raydual.data.formats.source import unique_ids
from raydual.data.formats.splits import assign_splits, group_key, parse_fractions, quotas
from raydual.errors import DataError


@pytest.mark.parametrize(
    ("image_id", "key"),
    [
        ("DSC_1352_12kv2r1k_0", "DSC_1352"),
        ("DSC_1361_12kv2rk10_14", "DSC_1361"),
        ("BloodImage_00001", "BloodImage_00001"),
        ("2", "2"),
        ("IMG_0042_jpg.rf.0a1b2c3d", "IMG_0042"),
        ("DSC_9_12kv2r1k_3_png.rf.ff00", "DSC_9"),
        ("field_tile_12", "field"),
        ("field_r3_c4", "field"),
        ("field_x640_y0", "field"),
    ],
)
def test_group_key(image_id, key):
    assert group_key(image_id) == key


def test_resplit_keeps_tiles_together_and_meets_the_quotas():
    ids = [f"DSC_{photo}_12kv2r1k_{tile}" for photo in range(40) for tile in range(5)]
    splits = assign_splits(ids, (0.8, 0.1, 0.1))
    assert all(len({splits[i] for i in ids[p * 5 : p * 5 + 5]}) == 1 for p in range(40))
    assert Counter(splits.values()) == {"train": 160, "val": 20, "test": 20}
    assert assign_splits(ids[::-1], (0.8, 0.1, 0.1)) == splits
    single = assign_splits([str(i) for i in range(148)], (0.8, 0.1, 0.1))
    assert sorted(Counter(single.values()).values()) == [15, 15, 118]


def test_resplit_fills_every_split_where_it_can():
    ids = [f"a{photo}_tile_{tile}" for photo in range(3) for tile in range(9)]
    assert set(assign_splits(ids, (0.8, 0.1, 0.1)).values()) == {"train", "val", "test"}
    assert set(assign_splits(ids, (0.9, 0.1, 0.0)).values()) == {"train", "val"}
    assert quotas(10, (0.8, 0.1, 0.1)) == [8, 1, 1]
    assert quotas(3, (0.8, 0.1, 0.1)) == [1, 1, 1]
    assert quotas(5, (0.5, 0.5, 0.0)) == [3, 2, 0]


@pytest.mark.parametrize("text", ["", "0.8,0.1", "0.8,0.1,0.2", "a,b,c", "1.5,-0.5,0", "nan,0,1"])
def test_wrong_fractions(text):
    with pytest.raises(DataError, match="add up to 1"):
        parse_fractions(text)


def test_ids_are_stems_unless_they_clash():
    names = ["a/1.jpg", "b/1.jpg", "b/2.jpg", "b/2.png", "c/3.jpg"]
    ids = unique_ids(names)
    assert ids["c/3.jpg"] == "3"
    assert ids["a/1.jpg"] == "a/1.jpg"
    assert len(set(ids.values())) == len(names)
