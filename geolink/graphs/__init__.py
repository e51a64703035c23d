"""OpenStreetMap entities of one tile as a heterogeneous graph."""
