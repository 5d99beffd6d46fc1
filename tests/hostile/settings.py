"""Configurations, search files, overrides and names."""

from __future__ import annotations

from tests.hostile.case import PASSWORD, Case
from tests.hostile.materials import TRAIN, both, dataset, put

SHOW = "train --config c.yaml --show-config"
NOTHING = both()


def bomb(kind: str) -> str:
    """Return ten lines of YAML that stand for 10**9 values."""
    pairs = [", ".join([f"*a{i - 1}"] * 10) if i else "1" for i in range(10)]
    if kind == "mappings":
        pairs = [", ".join(f"k{j}: *a{i - 1}" for j in range(10)) if i else "k: 1"
                 for i in range(10)]  # fmt: skip
    left, right = "{}" if kind == "mappings" else "[]"
    lines = [f"  k{i}: &a{i} {left}{pair}{right}" for i, pair in enumerate(pairs)]
    return "coord:\n" + "\n".join(lines) + "\n"


YAML: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "Python object": ("seed: !!python/object/apply:os.getcwd []", ("c.yaml", "python/object")),
    "Python name": ("seed: !!python/name:os.system", ("c.yaml", "python/name")),
    "Python module": ("seed: !!python/module:antigravity", ("c.yaml", "python/module")),
    "10**9 values by aliases, lists": (bomb("lists"), ("c.yaml", "values")),
    "10**9 values by aliases, mappings": (bomb("mappings"), ("c.yaml", "values")),
    "mapping within itself": ("run: &a\n  name: *a", ("c.yaml", "itself")),
    "list within itself": ("run:\n  name: &a [*a]", ("c.yaml", "itself")),
    "100,000 brackets": ("seed: " + "[" * 10**5, ("c.yaml",)),
    "10,000 mappings in each other": ("{a: " * 10**4 + "1" + "}" * 10**4, ("c.yaml",)),
    "list in the place of a mapping": ("- 1", ("c.yaml", "list")),
    "text in the place of a mapping": ("<script>", ("c.yaml", "str")),
    "number of 10,000 digits": ("seed: " + "9" * 10**4, ("c.yaml",)),
    "hexadecimal number of 10,000 digits": ("seed: 0x" + "f" * 10**4, ("seed",)),
    "day that does not exist": ("seed: 2026-99-99", ("c.yaml",)),
    "text of a million letters for a number": ("seed: " + "a" * 10**6, ("seed",)),
    "key of a million letters": ("? " + "a" * 10**6 + "\n: 1", ("unknown key",)),
    "list as a key": ("? [1, 2]\n: 1", ("c.yaml",)),
    "number as a key": ("1: 2", ("keys are text",)),
    "zero byte": (b"seed: \0", ("c.yaml",)),
    "no UTF-8": (b"seed: \xff\xfe", ("c.yaml",)),
    "NaN for a rate": ("coord: {lr: .nan}", ("coord.lr",)),
    "infinity for a patience": ("coord: {patience: .inf}", ("coord.patience",)),
    "unknown key": ("coord: {learning_rate: 1}", ("unknown key", "coord.lr")),
    "terminal codes in a key": ('"\\e[2Jcoord": 1', ("unknown key",)),
}

OVERRIDES: dict[str, tuple[str, tuple[str, ...]]] = {
    "name of a run above the storage": ("run.name=../../evil", ("run.name",)),
    "name of a run with a slash": ("run.name=a/b", ("run.name",)),
    "name of a run that is hidden": ("run.name=.ssh", ("run.name",)),
    "name of a run with a line break": ("'run.name=\"a\\nb\"'", ("run.name",)),
    "Python object": ("'seed=!!python/object/apply:os.getcwd []'", ("seed",)),
    "image of 10**9 pixels a side": ("data.image_size=1000000000", ("data.image_size",)),
    "seed of 100 bits": (f"seed={10**30}", ("seed",)),
    "key with a zero width": ("'coord.\u200blr=1'", ("unknown key",)),
    "trunk above the folder": ("model.trunk=../nothing/there", ("model.trunk",)),
    "scheme that does not exist": ("run.storage=gopher://a/b", ("gopher://a/b",)),
}

SEARCH_OK = "space:\n  coord.lr: {loguniform: [1e-5, 1e-3]}\n"
SEARCHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Python object": ("space: !!python/object/apply:os.getcwd []", ("s.yaml",)),
    "10**9 values by aliases": (bomb("lists").replace("coord:", "space:"), ("s.yaml", "values")),
    "a million million patiences": (
        SEARCH_OK + "  coord.patience: {randint: [1, 1000000000000]}\n",
        ("space.coord.patience", "values"),
    ),
    "place of the runs as a parameter": (
        "space: {run.storage: {choice: [/etc, /tmp]}}",
        ("space", "run.storage"),
    ),
    "trust as a parameter": (
        "space: {model.trust_remote_code: {choice: [true, false]}}",
        ("space", "trust_remote_code"),
    ),
    "configuration that is none": (
        SEARCH_OK + "base: {config: /etc/passwd}\n",
        ("/etc/passwd",),
    ),
    "preset above the presets": (SEARCH_OK + "base: {preset: ../../x}\n", ("preset", "../../x")),
    "list in the place of the space": ("space: [1]", ("space",)),
    "NaN as an end": ("space: {coord.lr: {uniform: [.nan, 1]}}", ("space.coord.lr",)),
    "script as a key": ("space: {<script>: {choice: [1]}}", ("unknown key", "<script>")),
    "key that is no text": ("1: 2", ("unknown key",)),
}

SYNTH = "data synth out/ds --images 4 --image-size 48"

OUTPUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dataset into a file that is there": (f"{SYNTH.replace('out/ds', '../canary.txt')}",
                                          ("canary.txt", "is a file")),
    "dataset into a folder that is not empty": (f"{SYNTH.replace('out/ds', '..')}",
                                                ("not empty",)),
    "pictures over another file": ("data preview ds ../canary.txt", ("canary.txt", ".png")),
    "storage that is a file": (f"{TRAIN.replace('run.storage=out', 'run.storage=../canary.txt')}"
                               " data.path=ds", ("canary.txt",)),
    "splits that do not add up": (f"{SYNTH} --splits nan,inf,-inf", ("nan,inf,-inf",)),
    "shape with a script": (f"{SYNTH} --categories '<script>'", ("<script>",)),
}  # fmt: skip

SECRET = f"AKIAHOSTILE:{PASSWORD}"
CREDENTIALS = {
    "key in the storage": f"run.storage=s3://{SECRET}@bucket/runs",
    "key in the data": f"data.path=s3://{SECRET}@bucket/ds",
    "key behind a question mark": f"data.path='s3://bucket/ds?secret_key={PASSWORD}'",
    "key in the endpoint": (
        f"run.storage='s3://bucket/runs?endpoint_override=https://{SECRET}@host'"
    ),
}


CASES = [
    *(Case("YAML", name, put("c.yaml", text), SHOW, says) for name, (text, says) in YAML.items()),
    *(Case("override", name, dataset, f"{TRAIN} data.path=ds {override}", says)
      for name, (override, says) in OVERRIDES.items()),
    Case("override", "preset above the presets", NOTHING, "train --preset ../../../etc/passwd",
         ("no preset",)),
    *(Case("override", f"credentials: {name}", NOTHING, f"{TRAIN} {override}",
           ("credentials",)) for name, override in CREDENTIALS.items()),
    Case("override", "credentials: key in a dataset to check", NOTHING,
         f"data check s3://{SECRET}@bucket/ds", ("credentials",)),
    *(Case("search YAML", name, put("s.yaml", text), "tune s.yaml run.storage=out", says)
      for name, (text, says) in SEARCHES.items()),
    *(Case("output", name, dataset, command, says) for name, (command, says) in OUTPUTS.items()),
]  # fmt: skip
