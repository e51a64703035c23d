"""What a pretraining run is asked for, checked before any work is done."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from geolink.augment import Augmentation
from geolink.config import ModelConfig
from geolink.errors import ConfigError
from geolink.models.objectives import RELEASED_MOST_NODES, ObjectiveConfig
from geolink.training.settings import TrainingSettings

ModelSize: TypeAlias = Literal["tiny", "small", "base", "large"]
Profile: TypeAlias = Literal["geolink", "released"]
TagEncoderName: TypeAlias = Literal["table", "minilm", "clip"]


@dataclass(frozen=True)
class PretrainRequest:
    """One pretraining run.

    Attributes:
        out: the run folder.
        images: a folder or an address of shards, or a folder of georeferenced rasters and pictures
            with a bounding box.
        imagery: instead, one or several of a raster, a folder, `simulated`,
            `sentinel2[:START/END]`, `stac:...` and `xyz:...`.
        osm: OSM extracts of the images; not needed with shards. What is simulated or fetched is so
            for the area of each.
        gsd: metres per pixel of tiles cut from rasters or simulated.
        tiles: greatest number of simulated tiles per extract and ground sampling distance.
        model_size: size of the image encoder.
        image_size: height and width of the images that the model sees, pixels.
        profile: `geolink` is the paper's method with its corrections (attention among node types,
            relation types that count), `released` does as the released code (at most 10 masked
            nodes, types that weigh the same, relations ignored, the corpus's own key counts).
        tag_encoder: what turns tags into vectors: the bundled `table`, or a text model, `minilm`
            or `clip`; by default `clip` for the released profile, else `table`.
        objectives: weights and masks.
        training: how it is trained.
        augmentation: crops, turns and colours; None shows every tile whole and as it is.
        probe: pictures in one folder per class, on which features are measured.
        every: epochs between weights, pictures and probes.
        accept_imagery_terms: note of the licence of map tiles, which they must have.
        offline: use nothing but what is here.
        resume: go on with the run in `out`.
        overwrite: replace the run in `out`.
    """

    out: Path
    images: str | Path | None = None
    imagery: str | Path | Sequence[str | Path] = ()
    osm: tuple[Path, ...] = ()
    gsd: tuple[float, ...] = ()
    tiles: int | None = None
    model_size: ModelSize = "tiny"
    image_size: int = 224
    profile: Profile = "geolink"
    tag_encoder: TagEncoderName | None = None
    objectives: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    probe: Path | None = None
    every: int = 1
    accept_imagery_terms: str | None = None
    offline: bool = False
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        imagery = [self.imagery] if isinstance(self.imagery, str | Path) else self.imagery
        object.__setattr__(self, "imagery", tuple(imagery))
        object.__setattr__(self, "out", Path(self.out))
        object.__setattr__(self, "osm", tuple(map(Path, self.osm)))
        if self.probe is not None:
            object.__setattr__(self, "probe", Path(self.probe))
        if (self.images is None) == (not self.imagery):
            raise ConfigError("give either a folder of images, or imagery, to pretrain on")
        if self.model_size not in get_args(ModelSize):
            sizes = ", ".join(get_args(ModelSize))
            raise ConfigError(f"no model size {self.model_size!r}; choose one of {sizes}")
        if self.profile not in get_args(Profile):
            raise ConfigError(f"no profile {self.profile!r}; choose geolink or released")
        if self.tag_encoder not in (None, *get_args(TagEncoderName)):
            known = ", ".join(get_args(TagEncoderName))
            raise ConfigError(f"no tag encoder {self.tag_encoder!r}; choose one of {known}")
        if self.resume and self.overwrite:
            raise ConfigError("a run is either resumed or overwritten; choose one")
        if self.every < 1:
            raise ConfigError(f"epochs between pictures are 1 or more, got {self.every}")

    @property
    def asked(self) -> ObjectiveConfig:
        """The objectives, with the released code's limit of masked nodes where it is asked for."""
        if self.profile == "released" and self.objectives.most_masked_nodes is None:
            return replace(self.objectives, most_masked_nodes=RELEASED_MOST_NODES)
        return self.objectives

    @property
    def encoder_name(self) -> TagEncoderName:
        """What turns tags into vectors."""
        return self.tag_encoder or ("clip" if self.profile == "released" else "table")

    def model(self, semantic_dim: int) -> ModelConfig:
        """What the model is made of."""
        name = f"vit_{self.model_size}_patch16_224"
        config = ModelConfig(image_encoder=name, pretraining=True)
        if self.profile == "released":
            config = ModelConfig.released(name)
        return replace(config, image_size=self.image_size, semantic_dim=semantic_dim)
