#!/usr/bin/env bash
# Train the tiny preset, 15 minutes at most on two cores for drawn images, then count others.
# Prints a section of counting.md a case.
#   benchmarks/counting.sh SCRATCH_FOLDER plain distractors twenty
#   SOURCES=FOLDER_WITH_THE_SOURCES benchmarks/counting.sh SCRATCH_FOLDER pear640 bccd
# The real images start from what `twenty` has learned, in the same scratch folder.
# Nothing is chosen by the images that are measured: checkpoints are the best ones of validation.
set -euo pipefail
sources=$(cd "${SOURCES:-.}" && pwd)
mkdir -p "$1"
cd "$1"
shift
export COLUMNS=100

show() {
    printf '\n```console\n$ %s\n' "${*//"$sources"/DATA}"
    "$@" 2>&1 | sed "s#$PWD#.#g; s#$sources#DATA#g"
    printf '```\n'
}

show_end() { # of a training: its last epoch
    printf '\n```console\n$ %s\n...\n' "$*"
    "$@" 2>&1 | tail -n 9 | sed "s#$PWD#.#g"
    printf '```\n'
}

drawn() { # NAME OPTIONS: what is learned from and what is counted, drawn alike from two seeds
    show raydual data synth "$1" --images 9000 --seed 11 --splits 0.94,0.05,0.01 "${@:2}"
    show raydual data synth "$1-unseen" --images 400 --seed 777 --splits 0,0,1 "${@:2}"
}

few=(model.trunk=runs/twenty/best_coord_checkpoint coord.lr=5e-4 done.lr=5e-4 data.augment=true)
few+=(coord.match=nearest data.mark.style=dots)
few+=(coord.patience=200 done.patience=200 train.count_every=20)
for name in "$@"; do
    printf '\n## %s\n' "$name"
    measured=$name-unseen settings=() calibrated=false
    case $name in
    plain) drawn "$name" ;;
    distractors) drawn "$name" --distractors 6 && settings=(train.epochs=12 train.max_iterations=250) ;;
    twenty) drawn "$name" --max-objects 20 && settings=(train.epochs=9 train.max_iterations=250) ;;
    pear640)
        show raydual data import coco "$sources/pear640" "$name" --resplit 0.65,0.1,0.25
        measured=$name settings=("${few[@]}" train.epochs=120 data.image_size=192) calibrated=true
        settings+=(data.mark.missing=0.15 data.mark.doubled=0.1)
        ;;
    bccd)
        show raydual data import voc "$sources/bccd/BCCD" "$name" --category RBC --min-objects 8
        measured=$name settings=("${few[@]}" train.epochs=160 data.image_size=144) calibrated=true
        ;;
    *) echo "unknown: $name" >&2 && exit 2 ;;
    esac
    SECONDS=0
    show_end raydual train "data.path=$name" "run.name=$name" "${settings[@]}"
    printf '\nTrained in %d min %d s.\n' $((SECONDS / 60)) $((SECONDS % 60))
    if $calibrated; then show raydual calibrate "runs/$name" --data "$name"; fi
    show raydual evaluate "runs/$name" --data "$measured"
done
