"""The GeoLink model: image encoder, OSM encoder, fusion and heads."""
