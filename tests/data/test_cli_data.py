import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raydual import cli_data
from raydual.data.formats.synthetic import SynthConfig
from raydual.data.schema import read_rows
from raydual.errors import DataError

DATA = Path(os.environ.get("RAYDUAL_DATA", "/nonexistent"))
SMALL = ["--images", "12", "--image-size", "64"]


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(
        cli_data.data_app, [str(a) for a in arguments], env={"COLUMNS": "120"}
    )
    if isinstance(result.exception, DataError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_synth_check_preview(tmp_path):
    out = invoke("synth", tmp_path / "set", *SMALL, "--distractors", 2, "--background", "plain")
    assert "Categories: circle, square, star, triangle" in out
    assert "Fit for training" in invoke("check", tmp_path / "set")
    invoke("preview", tmp_path / "set", tmp_path / "sheet.png", "--images", 4)
    assert (tmp_path / "sheet.png").exists()


def test_options_of_synth_are_those_of_its_config():
    options = inspect.signature(cli_data.synth).parameters
    for name, field in SynthConfig.model_fields.items():
        default = options[name].default
        if isinstance(field.default, tuple):
            assert default == ",".join(str(value) for value in field.default)
        else:
            assert default == field.default


def test_png_files_and_csv_are_imported_back_exactly(tmp_path):
    options = [*SMALL, "--min-objects", 0, "--max-objects", 3, "--distractors", 1, "--seed", 3]
    invoke("synth", tmp_path / "png", "--png", *options)
    invoke("synth", tmp_path / "parquet", *options)
    invoke("import", "csv", tmp_path / "png", tmp_path / "back")
    direct = {row.id: row for row in read_rows(tmp_path / "parquet")}
    back = {row.id: row for row in read_rows(tmp_path / "back")}
    assert direct.keys() == back.keys()
    for row_id, row in direct.items():
        copy = back[row_id]
        assert (copy.split, copy.category, copy.width) == (row.split, row.category, row.width)
        assert (copy.points == row.points).all()
        assert copy.points.shape == row.points.shape


def test_check_exits_with_one_where_training_would_break(tmp_path):
    invoke("synth", tmp_path / "set", *SMALL, "--splits", "1,0,0")
    output = invoke("check", tmp_path / "set", code=1)
    assert "split val is empty" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synth", "OUT", "--max-objects", 100_000], "can be told apart"),
        (["synth", "OUT", "--background", "lava"], "--background is 'lava'"),
        (["synth", "OUT", "--splits", "0.5,0.1,0.1"], "add up to 1"),
        (["synth", "s3://bucket/x", "--png"], "local folder"),
        (["import", "yolo", "SRC", "OUT"], "choose one of fsc147, coco, voc, csv"),
        (["import", "voc", "nowhere", "OUT"], "is not there"),
        (["import", "voc", "nowhere", "OUT", "--resplit", "1"], "add up to 1"),
        (["check", "nowhere"], "no dataset at"),
        (["preview", "nowhere", "x.png"], "no dataset at"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        invoke(*arguments)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_help_loads_no_heavy_library():
    code = (
        "import sys, raydual.cli_data;"
        "heavy = {'numpy', 'PIL', 'pyarrow', 'pydantic', 'torch', 'ray'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not DATA.is_dir(), reason="RAYDUAL_DATA is not set")
def test_a_real_folder_from_import_to_preview(tmp_path):
    src = DATA / "fsc147"
    output = invoke("import", "fsc147", src, tmp_path / "set", "--resplit", "0.8,0.1,0.1")
    assert "19" in output or "more" in output
    invoke("check", tmp_path / "set")
    invoke("preview", tmp_path / "set", tmp_path / "sheet.png", "--order", "nearest_neighbor")
    manifest = json.loads((tmp_path / "set/dataset.json").read_text())
    assert manifest["source"] == "fsc147 fsc147"
