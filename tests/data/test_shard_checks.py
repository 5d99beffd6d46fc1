import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydual.data import shard_checks
from raydual.data.schema import Row, open_shard, read_rows, rows_of, write_dataset
from raydual.errors import DataError


def test_row_groups_that_swell_are_not_read(dataset, monkeypatch):
    assert next(read_rows(dataset, "train"))
    monkeypatch.setattr(shard_checks, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match=r"a row group has \d+ bytes, 1000 at the most"):
        next(read_rows(dataset, "train"))


def test_an_image_that_all_rows_share_is_held_once(tmp_path):
    rows = [Row(f"{i}", "train", "pear", bytes(10**6), 4, 4, np.zeros((0, 2))) for i in range(50)]
    write_dataset(rows, tmp_path / "d", source="a test")
    file = tmp_path / "d/train/shard-00000.parquet"
    pq.write_table(pq.read_table(file), file, dictionary_pagesize_limit=10**8, compression="zstd")
    assert file.stat().st_size < 10**5
    pool = pa.default_memory_pool()
    with open_shard(str(file)) as parquet:
        before = pool.bytes_allocated()
        table = parquet.read_row_group(0)
        assert pool.bytes_allocated() - before < 5 * 10**6
        assert [row.image for row in rows_of(table)] == [bytes(10**6)] * 50
