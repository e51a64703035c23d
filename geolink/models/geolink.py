"""The GeoLink model: image and OSM encoders, their fusion, and the segmentation head."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from geolink.config import ModelConfig
from geolink.graphs.schema import NODE_TYPES, NodeType
from geolink.models.card import ModelCard
from geolink.models.fusion import Fusion
from geolink.models.graph_batch import GraphBatch, Graphs, collate
from geolink.models.heads import SceneHead, UperNet
from geolink.models.image_encoder import ImageEncoder, ImageFeatures
from geolink.models.osm_encoder import OsmEncoder
from geolink.models.pretraining import Pretraining


class GeoLink(nn.Module):
    """RGB imagery fused with OpenStreetMap vectors (Bai et al., NeurIPS 2025, arXiv 2509.26016).

    `graphs` is, in every method, one graph or None per image, a torch-geometric `Batch`, one graph
    for a batch of one image, a `GraphBatch` that was collated before, or None for no OSM at all.
    Images are float32, normalised with the mean and deviation of ImageNet.
    """

    card: ModelCard  # what the weights are; only models that were loaded have one

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageEncoder(config)
        self.osm = OsmEncoder(config)
        self.fusion = Fusion(config)
        per_image = config.task in ("classify", "regress")
        self.decoder = SceneHead(config) if per_image else UperNet(config)
        self.pretraining = Pretraining(config) if config.pretraining else None

    def forward(self, images: Tensor, graphs: Graphs = None) -> Tensor:
        """What the head answers.

        Args:
            images: (B, bands, H, W); for change detection (B, 2, bands, H, W), earlier date first.
            graphs: OSM graphs of the images, the same for both dates.

        Returns:
            Class scores before softmax, (B, classes, H, W) or, of a model that classifies images,
            (B, classes); predicted numbers (B, classes) of a model for regression.
        """
        if isinstance(self.decoder, SceneHead):
            answer: Tensor = self.decoder(self.encode_scene(images, graphs))
            return answer
        scores = self.logits_at_stride(images, graphs)
        return functional.interpolate(
            scores, images.shape[-2:], mode="bilinear", align_corners=False
        )

    def logits_at_stride(self, images: Tensor, graphs: Graphs = None) -> Tensor:
        """Class scores (B, classes, H / 4, W / 4) at the decoder's stride."""
        if self.config.task == "change":
            before, after = (self.encode(images[:, date], graphs) for date in (0, 1))
            maps = [(a - b).abs() for a, b in zip(after, before, strict=True)]
        else:
            maps = self.encode(images, graphs)
        scores: Tensor = self.decoder(maps)
        return scores

    def encode_scene(self, images: Tensor, graphs: Graphs = None) -> Tensor:
        """Scene encodings (B, width + fusion_dim), the features of a whole image.

        They are the means over all patches of the image encoder's last block and of the hybrid
        RS-OSM patch encodings.
        """
        image: ImageFeatures = self.image(images)
        hybrid = self._fuse(image, self._collate(images, graphs))
        return torch.cat([image.tokens[:, 1:].mean(dim=1), hybrid.mean(dim=(2, 3))], dim=1)

    def encode(self, images: Tensor, graphs: Graphs = None) -> list[Tensor]:
        """Feature maps for downstream tasks (Bai et al. 2025, section 4).

        Args:
            images: (B, bands, H, W), sides multiples of the patch.
            graphs: OSM graphs of the images.

        Returns:
            Four (B, C, H / 16, W / 16) maps: three blocks of the image encoder, then the hybrid
            RS-OSM patch encodings.
        """
        image: ImageFeatures = self.image(images)
        return [*image.maps, self._fuse(image, self._collate(images, graphs))]

    def encode_objects(
        self, images: Tensor, graphs: Graphs
    ) -> tuple[list[Tensor], list[dict[NodeType, Tensor]]]:
        """Feature maps as from `encode`, and hybrid OSM-RS encodings of the objects themselves.

        Returns:
            The four maps, and for each image, per node type, (N, fusion_dim) encodings in the order
            of the graph's nodes.
        """
        image: ImageFeatures = self.image(images)
        batch = self._collate(images, graphs)
        hybrid, objects = self.fusion.with_objects(image, self.osm(batch), batch)
        by_tile = [
            {kind: objects[kind][batch.tile[kind] == tile] for kind in NODE_TYPES}
            for tile in range(batch.size)
        ]
        return [*image.maps, hybrid], by_tile

    def probabilities_with_and_without(self, images: Tensor, graphs: Graphs = None) -> Tensor:
        """Class probabilities with OSM and without it, from one pass of the image encoder.

        Returns:
            (2, B, classes, H / 4, W / 4), index 0 with OSM, 1 without; both are the same for tiles
            without nodes.
        """
        image: ImageFeatures = self.image(images)
        batch = self._collate(images, graphs)
        without = self.decoder([*image.maps, self._fuse(image, self._collate(images, None))])
        fused = without
        if batch.has_nodes.any():
            fused = self.decoder([*image.maps, self._fuse(image, batch)])
            # The choice makes both equal to the bit where there is no OSM.
            fused = torch.where(batch.has_nodes[:, None, None, None], fused, without)
        return torch.stack([fused, without]).float().softmax(dim=2)

    def _fuse(self, image: ImageFeatures, batch: GraphBatch) -> Tensor:
        hybrid: Tensor = self.fusion(image, self.osm(batch), batch)
        return hybrid

    def _collate(self, images: Tensor, graphs: Graphs) -> GraphBatch:
        if isinstance(graphs, GraphBatch):
            return graphs.to(images.device)
        config = self.config
        batch = collate(
            graphs,
            len(images),
            semantic_dim=config.semantic_dim,
            coverage_cells=(config.coverage_side or 0) ** 2,
        )
        return batch.to(images.device)
