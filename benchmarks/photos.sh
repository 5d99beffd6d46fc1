#!/usr/bin/env bash
# Train the preset `photo` on small sets of real photos, without any other setting, and count others.
# Then train a density map on the same images for about ten minutes (not for fsc147, of many
# categories). Prints one section of photos.md for each set.
#   SOURCES=FOLDER_WITH_THE_SOURCES benchmarks/photos.sh SCRATCH_FOLDER pear640 cherry palm ...
# SEEDS="0 1 2" repeats the training; DENSITY=0 leaves the density map out.
# Nothing is chosen by the images that are measured: checkpoints and thresholds are the best ones of
# validation.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sources=$(cd "${SOURCES:?the folder with the sources}" && pwd)
mkdir -p "$1"
cd "$1"
shift
export COLUMNS=100

show() {
    printf '\n```console\n$ %s\n' "${*//"$sources"/DATA}"
    "$@" 2>&1 | sed "s#$PWD#.#g; s#$sources#DATA#g"
    printf '```\n'
}

for name in "$@"; do
    printf '\n## %s\n' "$name"
    case $name in
    pear640) what=(coco "$sources/pear640" "$name" --resplit 0.65,0.1,0.25) ;;
    fsc147) what=(fsc147 "$sources/fsc147" "$name" --resplit 0.65,0.1,0.25) ;;
    bccd) what=(voc "$sources/bccd/BCCD" "$name" --category RBC --min-objects 8) ;;
    *) what=(csv "$sources/$name/points.csv" "$name") ;;
    esac
    [ -d "$name" ] || show raydual data import "${what[@]}"
    for seed in ${SEEDS:-0}; do
        run=$name-$seed
        SECONDS=0
        printf '\n```console\n$ raydual train --preset photo data.path=%s run.name=%s seed=%s\n...\n' \
            "$name" "$run" "$seed"
        raydual train --preset photo "data.path=$name" "run.name=$run" "seed=$seed" 2>&1 |
            tail -n 8 | sed "s#$PWD#.#g"
        printf '```\n\nTrained in %d min %d s.\n' $((SECONDS / 60)) $((SECONDS % 60))
        show raydual evaluate "runs/$run" --data "$name"
        python "$here/count_row.py" "$run" "runs/$run/evaluation/evaluation.json" \
            count/bias:+.2f loc/f1@10px:.3f count/looks:.1f baseline_median/mae:.2f
        if [ "${DENSITY:-1}" = 1 ] && [ "$name" != fsc147 ]; then
            show python "$here/density.py" "$name" 160 10min "$seed"
        fi
    done
done
