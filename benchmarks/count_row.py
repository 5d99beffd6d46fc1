"""Print a table row of counting: what was changed, MAE with its interval, and named figures.

python benchmarks/count_row.py LABEL EVALUATION_JSON KEY:FORMAT...
"""

import json
import sys
from pathlib import Path

label, file, *wanted = sys.argv[1:]
figures = json.loads(Path(file).read_text())
mae, low, high = (figures[f"count/mae{end}"] for end in ("", "_low", "_high"))
cells = [label, f"{mae:.2f} [{low:.2f}, {high:.2f}]"]
for key, _, form in (item.partition(":") for item in wanted):
    cells.append(format(figures[key], form))
print(f"| {' | '.join(cells)} |", flush=True)
