#!/bin/sh
# Measures the bundled model on the bundled sample; see README.md. Usage: sh run.sh [FOLDER]
set -eu
runs=${1:-runs}
mkdir -p "$runs"
sample="--city sample --labels osm"

geolink evaluate $sample --gsd 1.5 --osm-dropout "0.5,building=*" --blur 3 --report "$runs/first" --overwrite
geolink evaluate $sample --gsd 3 --report "$runs/second" --overwrite
geolink evaluate --compare "$runs/first/report.json" "$runs/second/report.json"

code=0
geolink evaluate $sample --gsd 3 --fail-under miou=0.99 || code=$?
test "$code" -eq 5

geolink evaluate $sample --gsd 2 --protocol finetune --split random --mode frozen --epochs 2 --seeds 2 \
    --report "$runs/finetuned" --overwrite
