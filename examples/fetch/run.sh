#!/bin/sh
# Registers files under a name and maps them offline; see README.md. Usage: sh run.sh [FOLDER]
set -eu
here=$(dirname "$0")
runs=${1:-runs}
mkdir -p "$runs"
export GEOLINK_CACHE="$runs/cache"

python "$here/make_town.py" "$runs"
geolink fetch --city town --imagery "$runs/ortho.tif" --osm "$runs/town.osm.pbf" --overwrite
geolink predict --city town --offline --out "$runs/town.gpkg" --overwrite
geolink fetch --list
geolink fetch --verify
geolink fetch --remove town
