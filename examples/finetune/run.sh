#!/bin/sh
# Fine-tunes on the bundled sample, three ways; see README.md. Usage: sh run.sh [FOLDER]
set -eu
here=$(dirname "$0")
runs=${1:-runs}
mkdir -p "$runs"

geolink finetune --city sample --labels osm --split random --epochs 3 --out "$runs/weak" --overwrite
geolink predict --city sample --model "$runs/weak" --out "$runs/weak.gpkg" --overwrite

python "$here/make_labels.py" "$runs"
geolink finetune --city sample --labels "$runs/zones.gpkg" --mode lora --split random --epochs 3 \
    --class-weights sqrt --out "$runs/own" --overwrite
numbers="--task regress --city sample --labels $runs/cells.csv --label-column floor_area
    --mode frozen --split random --epochs 5 --out $runs/numbers"
geolink finetune $numbers --overwrite
geolink finetune $numbers --resume
