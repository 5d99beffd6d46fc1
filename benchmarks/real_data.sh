#!/usr/bin/env bash
# Import, check, preview and train an epoch on three real datasets; prints real-data.md.
#   benchmarks/real_data.sh FOLDER_WITH_THE_SOURCES SCRATCH_FOLDER > benchmarks/real-data.md
# The sources are those of bccd (Pascal VOC), pear640 (COCO) and fsc147 (its own layout).
set -euo pipefail
sources=$(cd "$1" && pwd)
mkdir -p "$2"
cd "$2"
export COLUMNS=100

show() {
    printf '\n```console\n$ %s\n' "${*//"$sources"/DATA}"
    "$@" 2>&1 | sed "s#$sources#DATA#g; s#$PWD#.#g"
    printf '```\n'
}

commit=$(git -C "$OLDPWD" rev-parse --short HEAD 2>/dev/null || echo unknown)
cat <<EOF
# Real images

Printed by \`benchmarks/real_data.sh\` on $(date -u +%F), commit $commit, $(nproc) CPU cores, no GPU.
One epoch of the tiny preset says that everything runs on these files, not that it counts them.
Their previews are not kept here, for the images are not part of this project.
EOF

for name in bccd pear640 fsc147; do
    case $name in
    bccd) what=(voc "$sources/bccd/BCCD" bccd --category RBC) ;;
    pear640) what=(coco "$sources/pear640" pear640) ;;
    fsc147) what=(fsc147 "$sources/fsc147" fsc147 --resplit 0.8,0.1,0.1) ;;
    esac
    printf '\n## %s\n' "$name"
    show raydual data import "${what[@]}"
    show raydual data check "$name"
    show raydual data preview "$name" "$name.png"
    show raydual train "data.path=$name" "run.name=$name" train.epochs=1
done
