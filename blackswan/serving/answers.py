"""The shapes of requests and answers, which OpenAPI shows, and what fills them."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from blackswan.data.images import encode_png
from blackswan.evaluation.regions import Region, find_regions
from blackswan.params import Section
from blackswan.reporting.heatmaps import HeatmapScale, layer, overlay
from blackswan.serving.detectors import Loaded
from blackswan.serving.placement import place, place_mask, to_photo
from blackswan.serving.scorer import Judged
from blackswan.tracking.contract import Params

LAYER_SIDE = 1024  # pixels of the longer side of a layer for a screen
WHITE, RED = "#FFFFFF", "#A50026"


class Picture(Section):
    """An image of a JSON request."""

    image: str = Field(description="base64 of an image file")
    name: str = ""


class Asked(Params):
    """What may be asked beside the scores."""

    layer: bool = False  # the colours of the heatmap alone, as they lie on the photo
    camera: str = ""  # whose regions do not count, where the service knows any


class ScoreRequest(Asked):
    """Images as JSON."""

    images: list[Picture] = Field(min_length=1)


class Box(BaseModel):
    """Pixels of the photo."""

    left: int
    top: int
    width: int
    height: int


class FoundRegion(BaseModel):
    """Where the map lies above its threshold, connected."""

    box: Box
    area_share: float = Field(description="of what the detector saw, 0 to 1")
    peak: float = Field(description="of the map; its threshold is that of the heatmap")
    polygon: list[tuple[float, float]] = Field(description="x and y, pixels of the photo")


class Detector(BaseModel):
    """Which detector answers."""

    name: str
    hash: str = Field(description="of its files, as DVC gives it")
    version: str | None = Field(description="a commit, or a version of MLflow's registry")
    source: str


class DetectorFacts(Detector):
    """What its verdicts rest on."""

    alpha: float
    threshold: float
    threshold_from: str
    data_sha256: str = Field(description="of the normal images that it learnt from")
    added_normals: int = Field(description="confirmed ones that joined its bank since")
    added_to: str | None = Field(description="hash of the detector before they did")
    cameras: list[str] = Field(description="that the regions of the service name")


class Detectors(BaseModel):
    """The detectors that are served."""

    detectors: list[DetectorFacts]


class IgnoredRegions(BaseModel):
    """What did not count of an image."""

    camera: str
    sha256: str = Field(description="of the file of regions")
    polygons: list[list[tuple[float, float]]] = Field(description="x and y, pixels of the photo")


class Result(BaseModel):
    """The answer on one image."""

    name: str
    image_score: float
    anomaly_score: float | None = Field(description="P(anomalous), of detectors that give it")
    p_value: float = Field(description="share of normal images that score as high")
    threshold: float
    verdict: str = Field(description="normal or anomalous")
    confidence: float = Field(description="that it is anomalous; 0.5 is the threshold")
    height: int = Field(description="of the photo, upright")
    width: int
    heatmap: str | None = Field(default=None, description="base64 of a PNG of what was judged")
    layer: str | None = Field(
        default=None, description="base64 of a PNG with transparency, to be laid on the photo"
    )
    regions: Sequence[FoundRegion] | None = None
    ignored: list[IgnoredRegions] = Field(
        default=[], description="of its camera, and of the detector since its threshold was set"
    )


class ScoreAnswer(BaseModel):
    """The answers on the images of a request, in their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "detector": {
                    "name": "padim",
                    "hash": "3a1f0c4b7d1e4f6e8c2b9a5d6e7f8091.dir",
                    "version": None,
                    "source": "data/detectors/padim",
                },
                "results": [
                    {
                        "name": "part.png",
                        "image_score": 7.25,
                        "anomaly_score": None,
                        "p_value": 0.02,
                        "threshold": 5.0,
                        "verdict": "anomalous",
                        "confidence": 0.97,
                        "height": 480,
                        "width": 640,
                        "heatmap": None,
                        "regions": [
                            {
                                "box": {"left": 310, "top": 95, "width": 42, "height": 20},
                                "area_share": 0.0027,
                                "peak": 7.25,
                                "polygon": [[310, 95], [351, 95], [351, 114], [310, 114]],
                            }
                        ],
                    }
                ],
            }
        }
    )

    detector: Detector
    results: list[Result]


class DominoAnswer(BaseModel):
    """The answer of the Domino Model API."""

    is_anomalous: bool
    confidence: float = Field(description="that it is anomalous; 0.5 is the threshold")


def of_detector(loaded: Loaded) -> Detector:
    """Return which detector answered."""
    return Detector(
        name=loaded.name, hash=loaded.hash, version=loaded.version, source=loaded.source
    )


def facts_of(loaded: Loaded, cameras: Sequence[str]) -> DetectorFacts:
    """Return what the verdicts of a detector rest on."""
    facts = loaded.model.facts
    return DetectorFacts(
        **of_detector(loaded).model_dump(),
        alpha=facts.alpha,
        threshold=facts.threshold,
        threshold_from=facts.threshold_from,
        data_sha256=facts.data_sha256,
        added_normals=len(loaded.added),
        added_to=loaded.base or None,
        cameras=[*cameras],
    )


def result_of(judged: Judged, name: str, asked: Asked) -> Result:
    """Return the answer on an image; numbers are exact, not rounded."""
    found, number, scale = judged.found, judged.number, judged.by.model.facts.heatmap
    score, anomaly_map = float(found.image_scores[number]), found.anomaly_maps[number]
    colours = HeatmapScale(scale.threshold, scale.top)
    heatmap = colour_layer = regions = None
    if asked.heatmap:
        heatmap = _picture(overlay(judged.image, anomaly_map, colours))
    if asked.layer:
        buffer = io.BytesIO()
        Image.fromarray(_on_photo(layer(anomaly_map, colours), judged)).save(buffer, "PNG")
        colour_layer = base64.b64encode(buffer.getvalue()).decode()
    if asked.regions:
        matrix = _way_back(judged)
        regions = [
            _placed(region, matrix, judged.shape, anomaly_map.size)
            for region in find_regions(anomaly_map, scale.threshold, asked.regions)
        ]
    return Result(
        name=name,
        image_score=score,
        anomaly_score=score if found.probabilities else None,
        p_value=float(found.p_values[number]),
        threshold=found.threshold,
        verdict="anomalous" if found.flagged[number] else "normal",
        confidence=judged.confidence,
        height=judged.shape[0],
        width=judged.shape[1],
        heatmap=heatmap,
        layer=colour_layer,
        regions=regions,
        ignored=[
            IgnoredRegions(
                camera=each.camera,
                sha256=each.sha256,
                polygons=[polygon.tolist() for polygon in each.regions.polygons(judged.shape)],
            )
            for each in judged.ignored
        ],
    )


def lookout_of(judged: Judged) -> dict[str, Any]:
    """Return the answer of AWS Lookout for Vision on an image.

    Its Confidence is that in the verdict, 0.5 to 1, whichever it is. Of what is normal it names no
    anomalies. The mask is a PNG of the size of the photo, white where nothing is.
    """
    flagged = bool(judged.found.flagged[judged.number])
    sure = judged.confidence if flagged else 1 - judged.confidence
    answer: dict[str, Any] = {
        "Source": {"Type": "direct"},
        "IsAnomalous": flagged,
        "Confidence": sure,
        "Anomalies": [],
    }
    if flagged:
        threshold = judged.by.model.facts.heatmap.threshold
        above = judged.found.anomaly_maps[judged.number] > threshold
        mask = place_mask(above, _way_back(judged), judged.shape)
        share = float(mask.mean())
        answer["Anomalies"] = [_share("background", 1 - share, WHITE)]
        answer["Anomalies"] += [_share("anomaly", share, RED)] if share else []
        colours = np.full((*mask.shape, 3), 255, np.uint8)
        colours[mask] = list(bytes.fromhex(RED[1:]))
        answer["AnomalyMask"] = _picture(colours)
    return {"DetectAnomalyResult": answer}


def _share(name: str, share: float, colour: str) -> dict[str, Any]:
    return {"Name": name, "PixelAnomaly": {"TotalPercentageArea": share, "Color": colour}}


def _picture(pixels: np.ndarray) -> str:
    return base64.b64encode(encode_png(pixels)).decode()


def _on_photo(colours: np.ndarray, judged: Judged) -> np.ndarray:
    """Lay colours, RGBA, on a photo scaled to at most LAYER_SIDE; beyond them all is clear."""
    height, width = judged.shape
    factor = min(1.0, LAYER_SIDE / max(judged.shape))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    matrix = _way_back(judged)
    scale = np.array([[size[0] / width], [size[1] / height]])
    matrix = np.hstack([matrix[:, :2], matrix[:, 2:] + 0.5]) * scale  # edges of pixels scale
    matrix[:, 2] -= 0.5
    return cv2.warpAffine(colours, matrix, size, flags=cv2.INTER_LINEAR)


def _way_back(judged: Judged) -> np.ndarray:
    return to_photo(judged.by.model.facts.preprocessing, judged.shape, judged.pose)


def _placed(region: Region, matrix: np.ndarray, shape: tuple[int, int], pixels: int) -> FoundRegion:
    """Lay a region of a map of so many pixels on a photo of `shape`."""
    height, width = region.inside.shape
    left, top = region.left - 0.5, region.top - 0.5  # edges of pixels
    edges = np.array([[left, top], [left + width, top], [left, top + height],
                      [left + width, top + height]])  # fmt: skip
    on_photo = place(edges, matrix) + 0.5
    low = np.clip(np.floor(on_photo.min(0) + 1e-6), 0, [shape[1] - 1, shape[0] - 1]).astype(int)
    high = np.clip(np.ceil(on_photo.max(0) - 1e-6), low + 1, shape[::-1]).astype(int)
    outlines, _ = cv2.findContours(
        region.inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    outline = max(outlines, key=len).reshape(-1, 2) + [region.left, region.top]
    return FoundRegion(
        box=Box(
            left=int(low[0]),
            top=int(low[1]),
            width=int(high[0] - low[0]),
            height=int(high[1] - low[1]),
        ),
        area_share=float(np.count_nonzero(region.inside) / pixels),
        peak=region.peak,
        polygon=[(float(x), float(y)) for x, y in place(outline, matrix)],
    )
