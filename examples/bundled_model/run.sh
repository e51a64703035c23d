#!/bin/sh
# Trains geolink-tiny, from nothing, with the product's own commands.
#
#     ./run.sh FOLDER_OF_EXTRACTS RUN_FOLDER
#
# The folder holds the extracts that are named below. A run that was cut goes on where it was.
# Central Helsinki (`sample`) is tested on at the end, and decides nothing.
set -eu
extracts=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

learned="baltimore karlsruhe_kirchfeld liechtenstein monaco neuss north_bayreuth"
validated="darmstadt_hbf singapore_bayfront"

# `--resume` where a run has begun, nothing where it has not; a finished run is left alone.
go_on() { if [ -e "$out/$1/run.json" ]; then echo --resume; fi; }
is_done() { [ -e "$out/$1/finetune.json" ]; }

osm= places=
for name in $learned darmstadt_hbf; do osm="$osm --osm $extracts/$name.osm.pbf"; done
for name in $learned $validated; do places="$places --extract $extracts/$name.osm.pbf"; done

if [ ! -e "$out/pretrained/done" ]; then
    geolink pretrain --imagery simulated $osm --gsd 1 --gsd 2 --tiles 120 \
        --reconstruction 0 --contrast 1 --consistency 0 \
        --batch-size 32 --learning-rate 4e-3 --warmup-epochs 1 --epochs 16 --every 4 \
        --workers 1 --save-every 25 --device cpu --out "$out/pretrained" $(go_on pretrained)
    touch "$out/pretrained/done"
fi

common="--cities sample --labels osm --test-cities sample --validation-cities darmstadt_hbf,singapore_bayfront
    --keep-samples --batch-size 8 --encoder-rate 1 --class-weights sqrt
    --appearance strong --drop-image 0.2 --drop-osm 0.1 --patience 0
    --workers 1 --save-every 100 --device cpu"

# Small tiles first: a quarter of the time, and most of the learning.
is_done coarse || geolink finetune $places $common --model "$out/pretrained" --tile-side 112 \
    --gsd 1 --gsd 1.7 --gsd 3 --tiles 250 --fraction 0.55 --rates 6e-4 --epochs 4 \
    --out "$out/coarse" $(go_on coarse)
