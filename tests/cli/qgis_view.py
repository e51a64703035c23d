"""Opens a map and its class raster as QGIS does, and prints what a user would see there as JSON.

Runs in the Python that QGIS belongs to, not in that of geolink.
"""

import json
import os
import sys

from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer

os.environ["QT_QPA_PLATFORM"] = "offscreen"


def main(map_path: str, raster_path: str) -> None:
    """Prints layers, legends and counts."""
    application = QgsApplication([], False)  # QGIS crashes once nobody holds it
    application.initQgis()
    seen = {"layers": {name: layer_of(map_path, name) for name in ("zones", "tiles")}}
    raster = QgsRasterLayer(raster_path)
    seen["raster"] = [(c.value, c.color.name()) for c in raster.renderer().classes()]
    sys.stdout.write(json.dumps(seen))
    sys.stdout.flush()
    os._exit(0)  # nor does it like to be taken down


def layer_of(path: str, name: str) -> dict[str, object]:
    """What there is of a layer, with the style that comes by itself."""
    layer = QgsVectorLayer(f"{path}|layername={name}", name, "ogr")
    renderer = layer.renderer()
    return {
        "crs": layer.crs().authid(),
        "features": layer.featureCount(),
        "invalid": sum(not each.geometry().isGeosValid() for each in layer.getFeatures()),
        "by": renderer.classAttribute(),
        "legend": {c.label(): c.symbol().color().name() for c in renderer.categories()},
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
