#!/bin/sh
# Maps the bundled sample, with OSM and without; see README.md. Usage: sh run.sh [FOLDER]
set -eu
here=$(dirname "$0")
runs=${1:-runs}
mkdir -p "$runs"

geolink predict --city sample --dry-run
geolink predict --city sample --out "$runs/sample.gpkg" --raster "$runs/sample.tif" \
    --preview "$runs/sample.png" --overwrite

python "$here/../fetch/make_town.py" "$runs"
geolink predict --imagery "$runs/ortho.tif" --no-osm --out "$runs/image_alone.gpkg" \
    --preview "$runs/image_alone.html" --overwrite
