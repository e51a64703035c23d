"""The command line of geolink: a thin skin over `geolink.workflows`."""
