#!/bin/sh
# Makes geolink-tiny from nothing with the product's own commands: pretrain, then finetune.
#
#     ./run.sh DATA RUN
#
# DATA holds osm/*.osm.pbf and imagery/banepa, as named below. A run that was cut goes on where it
# was. Central Helsinki (`sample`) is tested on at the end, and decides nothing.
set -eu
osm=$1/osm banepa=$1/imagery/banepa out=$2
mkdir -p "$out"
# The weights depend on the number of threads. On a busy machine several wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# `--resume` where a run has begun.
go_on() { if [ -e "$out/$1/run.json" ]; then echo --resume; fi; }

if [ ! -e "$out/pretrained.done" ]; then
    geolink pretrain --imagery simulated --imagery "$banepa/mosaic_train_0.5m_utm45n.tif" \
        --osm "$osm/baltimore.osm.pbf" --osm "$osm/darmstadt_hbf.osm.pbf" \
        --osm "$osm/karlsruhe_kirchfeld.osm.pbf" --osm "$osm/liechtenstein.osm.pbf" \
        --osm "$osm/monaco.osm.pbf" --osm "$osm/neuss.osm.pbf" \
        --osm "$osm/north_bayreuth.osm.pbf" --osm "$banepa/osm_buildings_derived.osm.pbf" \
        --gsd 0.5 --gsd 1 --gsd 2 --tiles 80 --reconstruction 0 --contrast 1 --consistency 0 \
        --batch-size 32 --learning-rate 4e-3 --warmup-epochs 1 --epochs 16 --every 4 \
        --workers 1 --save-every 25 --device cpu --out "$out/pretrained" $(go_on pretrained)
    touch "$out/pretrained.done"
fi

# learn NAME BASE OPTION...: fine-tunes one model into the next.
learn() {
    name=$1 base=$2
    shift 2
    [ -e "$out/$name/finetune.json" ] || geolink finetune --labels osm --model "$out/$base" \
        --extract "$osm/baltimore.osm.pbf" --extract "$osm/karlsruhe_kirchfeld.osm.pbf" \
        --extract "$osm/liechtenstein.osm.pbf" --extract "$osm/monaco.osm.pbf" \
        --extract "$osm/neuss.osm.pbf" --extract "$osm/north_bayreuth.osm.pbf" \
        --extract "$osm/darmstadt_hbf.osm.pbf" --extract "$osm/singapore_bayfront.osm.pbf" \
        --cities sample --test-cities sample \
        --validation-cities darmstadt_hbf,singapore_bayfront \
        --tile-side 112 --least-labelled 0.25 --most-uniform 0.85 --keep-samples --batch-size 8 \
        --encoder-rate 1 --class-weights sqrt --drop-osm 0.1 --patience 0 \
        --workers 1 --save-every 100 --device cpu --out "$out/$name" $(go_on "$name") "$@"
}

# learn_fine NAME BASE OPTION...: at the scales that maps are made at.
learn_fine() {
    learn "$@" --gsd 1 --gsd 1.7 --gsd 3 --tiles 400 --looks 4 --half
}

# Most is learned from much ground at a time. Then come pictures whose colours say less, and more
# that only OSM can tell; patches that take the objects in them; pictures as they mostly look.
learn coarse pretrained --gsd 1.4 --gsd 2.4 --gsd 4 --tiles 300 --looks 3 --epochs 8 \
    --rates 6e-4 --drop-image 0.1 --seed 100
learn_fine fine coarse --epochs 4 --rates 6e-4 --drop-image 0.3 --appearance strong --seed 100
learn_fine painted fine --epochs 4 --rates 6e-4 --drop-image 0.3 --appearance strong --seed 101 \
    --paint-objects
learn_fine geolink-tiny painted --epochs 3 --rates 4e-4 --drop-image 0.1 --appearance mixed \
    --seed 102
