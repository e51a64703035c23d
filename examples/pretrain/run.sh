#!/bin/sh
# Pretrains on the bundled sample, and goes on with the run; see README.md. Usage: sh run.sh [FOLDER]
set -eu
runs=${1:-runs}
mkdir -p "$runs"
osm=$(python -c "from geolink.sources.places import sample_extract; print(sample_extract())")

set -- --imagery simulated --osm "$osm" --gsd 3 --tiles 24 --image-size 96 --epochs 2 --batch-size 8 \
    --warmup-epochs 1 --workers 0 --out "$runs/encoder"
geolink pretrain "$@" --overwrite
geolink pretrain "$@" --resume
