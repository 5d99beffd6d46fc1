#!/usr/bin/env bash
# What each lever gives: the same short training on drawn images among distractors, one thing
# changed a time, measured by counting images never seen. Prints the table of levers.md.
#   benchmarks/levers.sh SCRATCH_FOLDER [LEVER...]    # 4 epochs a lever
# One training a lever: what lies within the intervals of the base is not established.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
shift
declare -A levers=(
    [base]=""
    [clean-marks]="data.mark.jitter=0 data.mark.missing=0 data.mark.doubled=0"
    [half-of-done-positive]="done.positive_fraction=0.5"
    [nearest]="coord.match=nearest"
    [augmented]="data.augment=true"
    [dots]="data.mark.style=dots"
    [128-px]="data.image_size=128"
)
[ $# -gt 0 ] || set -- base clean-marks half-of-done-positive nearest augmented dots 128-px calibrated
run() { "$@" >"$name.log" 2>&1 || { cat "$name.log" >&2 && exit 1; }; }
row() { # LABEL RUN
    run raydual evaluate "runs/$2" --data unseen
    python "$here/count_row.py" "$1" "runs/$2/evaluation/evaluation.json" count/exact:.1% loc/f1@10px:.3f
}

name=data
[ -d train ] || run raydual data synth train --images 9000 --seed 11 --splits 0.94,0.05,0.01 --distractors 6
[ -d unseen ] || run raydual data synth unseen --images 400 --seed 777 --splits 0,0,1 --distractors 6
echo "| changed | count MAE, 95 % | exact | F1 at 10 px |"
echo "| --- | --- | --- | --- |"
for name in "$@"; do
    if [ "$name" = calibrated ]; then
        run raydual calibrate runs/base --data train
        row "base, threshold calibrated on validation images" base
    else
        read -ra settings <<<"${levers[$name]}"
        run raydual train data.path=train "run.name=$name" train.epochs=4 train.max_iterations=250 log.wandb=disabled "${settings[@]}"
        row "$name${levers[$name]:+: \`${levers[$name]}\`}" "$name"
    fi
done
