"""The finished parts of an evaluation, from which one that was interrupted goes on."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raydual.counting.evaluation import Evaluation
from raydual.data.storage import join, open_filesystem

FOLDER = ".parts"


class Parts:
    """Files of one evaluation under `out`/.parts/, each whole or not there.

    They lie in a folder named by the evaluation's fingerprint: those of another are not seen.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._own = f"{FOLDER}/{evaluation.fingerprint}"
        self._fs, self._all = open_filesystem(join(evaluation.out, FOLDER))
        self._root = f"{self._all}/{evaluation.fingerprint}"

    def begin(self) -> None:
        """Make sure that parts can be written, before the first has been counted.

        Raises:
            ConfigError: they cannot.
        """
        about = json.dumps(self._evaluation.about(), indent=1)
        self._evaluation.write(f"{self._own}/about.json", about.encode())

    def finished(self) -> set[int]:
        """Return the numbers of the parts that are there."""
        files = self._fs.get_file_info(pafs.FileSelector(self._root, allow_not_found=True))
        names = [file.base_name for file in files if file.base_name.endswith(".parquet")]
        return {int(name.removesuffix(".parquet")) for name in names}

    def write(self, number: int, table: pa.Table) -> None:
        """Store a part.

        Raises:
            ConfigError: it cannot be written.
        """
        content = io.BytesIO()
        pq.write_table(table, content)
        self._evaluation.write(f"{self._own}/{number:06d}.parquet", content.getvalue())

    def read(self) -> pa.Table:
        """Return the rows of all parts, in the order of their numbers."""
        files = [f"{self._root}/{number:06d}.parquet" for number in sorted(self.finished())]
        return pa.concat_tables(pq.read_table(file, filesystem=self._fs) for file in files)

    def remove(self) -> None:
        """Remove these parts, and those of any other evaluation into the same place."""
        if self._fs.get_file_info(self._all).type == pafs.FileType.Directory:
            self._fs.delete_dir(self._all)
