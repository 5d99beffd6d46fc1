#!/usr/bin/env bash
# What each lever gives on real photos: one more of them a time, 80 epochs each, measured by counting
# the validation images, on which the threshold of done is calibrated too. Prints a table of levers.md.
#   benchmarks/counting.sh SCRATCH_FOLDER twenty    # what these trainings start from
#   benchmarks/pear_levers.sh SCRATCH_FOLDER FOLDER_WITH_THE_SOURCES
# 21 images: only large differences say anything.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sources=$(cd "$2" && pwd)
cd "$1"
run() { "$@" >"$name.log" 2>&1 || { cat "$name.log" >&2 && exit 1; }; }

name=pears
[ -d pears ] || run raydual data import coco "$sources/pear640" pears --resplit 0.65,0.1,0.25
settings=(data.path=pears model.trunk=runs/twenty/best_coord_checkpoint coord.lr=5e-4 done.lr=5e-4)
settings+=(data.augment=true train.epochs=80 coord.patience=80 done.patience=80 log.wandb=disabled)
echo "| and with | count MAE, 95 % | bias | F1 at 10 px |"
echo "| --- | --- | --- | --- |"
for lever in coord.match=ordered coord.match=nearest data.image_size=144 data.mark.style=dots; do
    settings+=("$lever")
    name=pears-${lever##*=}
    run raydual train "run.name=$name" "${settings[@]}"
    run raydual calibrate "runs/$name" --data pears
    run raydual evaluate "runs/$name" --data pears --split val
    python "$here/count_row.py" "\`$lever\`" "runs/$name/evaluation/evaluation.json" \
        count/bias:.1f loc/f1@10px:.3f
done
