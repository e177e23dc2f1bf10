"""Detectors of torchvision with their heads, and a segmentation network: how much is found depends on the numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, segmentation
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

from tests.sweeps import swept
from verifier import Verdict, verify


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(3, 64, 80, generator=generator), torch.rand(3, 70, 64, generator=generator)]


def detector(kind: str, **settings: Any) -> Any:
    """A small one whose scores differ more than a constructor's do, so that thresholds part them."""
    torch.manual_seed(0)
    backbone = _resnet_fpn_extractor(resnet18(), 3)
    build = {"faster": FasterRCNN, "retina": RetinaNet}[kind]
    network: nn.Module = build(backbone, 5, min_size=64, max_size=96, **settings)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and ("cls" in name or "bbox_pred" in name):
                parameter.mul_(8 if kind == "faster" else 20)
    return network.eval()


@pytest.mark.parametrize(
    ("kind", "weights"),
    swept(
        [(kind, weights) for kind in ("retina", "faster") for weights in ("calibrated", "as-is")],
        [("retina", "calibrated")],
    ),
)
def test_a_detector_is_itself(kind: str, weights: str) -> None:
    """Drawn weights find what those of the constructor do not, and another way is taken then."""
    found = verify(detector(kind), detector(kind), (pictures(),), weights=weights)
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")


class Wrong(NamedTuple):
    """A setting of a detector that is not the baseline's, where that shows and what is said of it."""

    kind: str
    settings: dict[str, Any]
    site: str
    code: str


WRONG = {
    "score": Wrong("faster", {"box_score_thresh": 0.25}, "roi_heads.gt", "gt-other"),
    "overlap": Wrong("faster", {"box_nms_thresh": 0.8}, "roi_heads.nms", "nms-iou-threshold"),
    "proposals": Wrong("faster", {"rpn_nms_thresh": 0.5}, "rpn.nms", "nms-iou-threshold"),
    "kept": Wrong("faster", {"box_detections_per_img": 20}, "roi_heads.getitem", "getitem-idx"),
    "retina-score": Wrong("retina", {"score_thresh": 0.02}, "gt", "gt-other"),
    "retina-overlap": Wrong("retina", {"nms_thresh": 0.3}, "nms", "nms-iou-threshold"),
}


@pytest.mark.parametrize("name", swept(WRONG, {"proposals"}))
def test_a_wrong_setting_of_a_head_is_one_cause(name: str) -> None:
    """Other numbers of boxes make other sizes behind, and indices that do not fit; those are not blamed first."""
    wrong = WRONG[name]
    right = detector(wrong.kind)
    found = verify(right, detector(wrong.kind, **wrong.settings), (pictures(),), weights="calibrated")
    assert found.verdict == Verdict.DIVERGED
    first = found.culprits[0]
    assert first.cause is not None
    assert first.cause.code == wrong.code
    assert (first.baseline or "").rstrip("_0123456789") == wrong.site


def segmenter(*, aligned: bool = False) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = segmentation.lraspp_mobilenet_v3_large(num_classes=4, weights_backbone=None).eval()
    if aligned:
        network.forward = lambda x: _upsampled(network, x)
    return network


def _upsampled(network: Any, x: Tensor) -> dict[str, Tensor]:
    scores = network.classifier(network.backbone(x))
    size = x.shape[-2:]
    return {"out": nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=True)}


def test_a_segmentation_network_is_compared_with_its_head() -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert verify(segmenter(), segmenter(), x).verdict == Verdict.MATCH
    (culprit,) = verify(segmenter(), segmenter(aligned=True), x).culprits
    assert culprit.op == "interpolate"
    assert culprit.cause is not None
    assert culprit.cause.code == "interpolate-align-corners"
