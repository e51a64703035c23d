"""Made-up evaluations that several test files share."""

from functools import cache

import numpy as np

from geolink.legend import IGNORE, UFZ
from geolink.metrics.segmentation import tally_map
from geolink.reports.record import Condition, Report

SIDE, BLOCK, GSD = 120, 40, 2.0


def reference_map(seed=0):
    """(SIDE, SIDE) class ids: squares of 20 pixels, a corner unknown."""
    cells = np.random.default_rng(seed).integers(0, 9, (SIDE // 20, SIDE // 20))
    reference = cells.repeat(20, axis=0).repeat(20, axis=1).astype(np.uint8)
    reference[:20, :20] = IGNORE
    return reference


def mapped(reference, share, seed=0):
    """A map of which about `share` is right, in patches, and what it says of its confidence."""
    rng = np.random.default_rng(seed)
    luck = rng.random((SIDE // 10, SIDE // 10)).repeat(10, axis=0).repeat(10, axis=1)
    wrong = rng.integers(0, 9, (SIDE // 10, SIDE // 10)).repeat(10, axis=0).repeat(10, axis=1)
    predicted = np.where((luck < share) & (reference != IGNORE), reference, wrong)
    confidence = np.clip(1.1 - luck + 0.1 * rng.standard_normal(luck.shape), 0, 1)
    return predicted.astype(np.uint8), confidence


@cache
def run(share, seed=0, place="here"):
    """Tallies of nine blocks of a map of which about `share` is right."""
    reference = reference_map()
    blocks = (np.indices((SIDE, SIDE)) // BLOCK * [[[3]], [[1]]]).sum(axis=0)
    options = {"classes": 9, "count": 9, "gsd": GSD}
    tallies = tally_map(reference, *mapped(reference, share, seed), blocks, **options)
    return {f"{place} {i}": tally for i, tally in enumerate(tallies)}


@cache
def condition(name, kind, share, seeds=3, draws=20, **where):
    """A condition in which about `share` is right."""
    runs = [run(share, seed) for seed in range(seeds)]
    return Condition.of(name, kind, runs, UFZ, draws=draws, **where)


def report(share=0.7, *, seeds=3, draws=20, more=True, **fields):
    """A report of a segmentation, with every kind of condition."""
    conditions = [condition("with OSM", "main", share, seeds, draws)]
    if more:
        conditions.append(condition("without OSM", "no_osm", share - 0.15, seeds, draws))
        for kind, levels in (
            ("osm_dropout", (0.2, 0.5)),
            ("osm_shift", (5.0, 20.0)),
            ("blur", (2.0, 4.0)),
            ("cloud", (0.3,)),
        ):
            for level in levels:
                fall = level / (40 if kind == "osm_shift" else 8 if kind == "blur" else 4)
                where = {"level": level}
                name = f"{kind} {level:g}"
                conditions.append(condition(name, kind, share - fall, seeds, draws, **where))
        for a in ("Oslo", "Bern"):
            for b in ("Oslo", "Bern", "Rome"):
                right = share if a == b else share - 0.3
                where = {"trained_on": a, "place": b}
                name = f"{a} to {b}"
                conditions.append(condition(name, "transfer", right, 1, draws, **where))
    common = {
        "title": "Made-up squares",
        "protocol": "segment",
        "measures": "segmentation",
        "legend": UFZ,
        "seeds": tuple(range(seeds)),
        "conditions": tuple(conditions),
        "model": {"name": "made-up", "sha256": "0" * 64},
        "data": [{"description": "squares", "licence": "MIT", "attribution": "nobody"}],
        "settings": {"seeds": seeds},
        "notes": ("Made up: no model, no place.",),
    }
    return Report(**{**common, **fields})
