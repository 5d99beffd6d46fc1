"""What a Parquet shard has to be before its rows are believed.

Each check raises `pa.ArrowInvalid`, as a shard does that is no Parquet: `open_shard` says where.
"""

import pyarrow as pa
import pyarrow.parquet as pq

MOST_BYTES = 2**31
"""What a row group may take once decompressed."""


def check_columns(parquet: pq.ParquetFile, expected: pa.Schema) -> None:
    """Refuse a file without one of the columns, with another type, or with too large row groups."""
    found = parquet.schema_arrow
    for field in expected:
        if field.name not in found.names:
            raise pa.ArrowInvalid(f"it has no column {field.name!r}")
        kind = found.field(field.name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if kind != field.type:
            raise pa.ArrowInvalid(f"its column {field.name!r} is {kind}, expected {field.type}")
    for number in range(parquet.num_row_groups):
        size = parquet.metadata.row_group(number).total_byte_size
        if size > MOST_BYTES:
            raise pa.ArrowInvalid(
                f"a row group has {size} bytes, {MOST_BYTES} at the most are read"
            )


def refuse_nulls(rows: pa.Table | pa.RecordBatch) -> None:
    """Refuse rows that lack a value."""
    for name in rows.schema.names:
        if rows.column(name).null_count:
            raise pa.ArrowInvalid(f"its column {name!r} has null in it")
