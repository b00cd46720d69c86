"""Detail guidance: the backbone learns where classes border on each other (Fan et al., "Rethinking
BiSeNet For Real-time Semantic Segmentation", CVPR 2021, section 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.upsampling import upsample

WINDOW = 3
"""Side of the Laplacian in pixels: a pixel and its neighbours."""

FUSION = {1: 0.6, 2: 0.3, 4: 0.1}
"""Weight of the edges seen at each stride. The official code calls them learnable, but no gradient
reaches them."""

THRESHOLD = 0.1
"""Above it a response is an edge, and fused edges are detail. In float32 an edge that is seen at
stride 4 alone has exactly this weight, and so is none."""

SMOOTH = 1.0
"""Added to both sides of the dice fraction."""


def detail_target(label: Tensor) -> Tensor:
    """Return where the detail of a label map lies, 1 or 0 in float32 [N, 1, H, W].

    A pixel is an edge where its train id, as a number, is above the mean of its eight neighbours;
    ignored pixels are the number 255, and outside the image lie zeros.

    Args:
        label: train ids, uint8 [N, H, W].
    """
    ids = label[:, None].float()
    fused = torch.zeros_like(ids)
    for stride, weight in FUSION.items():
        # The Laplacian is 8 times the centre minus the neighbours. Pooling needs no kernel, whose
        # copy to the GPU would make the host wait, and sums whole numbers exactly.
        centre = ids[..., ::stride, ::stride]
        total = F.avg_pool2d(ids, WINDOW, stride, padding=1, divisor_override=1)
        response = WINDOW**2 * centre - total
        edges = F.interpolate(response, ids.shape[-2:], mode="nearest") > THRESHOLD
        fused += weight * edges
    return (fused > THRESHOLD).float()


def detail_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the binary cross-entropy plus the dice loss of predicted detail.

    dice = 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) of each image, p = sigmoid(logits)

    Args:
        logits: [N, 1, h, w], enlarged bilinearly with aligned corners to the label's size.
        label: train ids, uint8 [N, H, W].

    Returns:
        Scalar, float32.
    """
    target = detail_target(label)
    logits = upsample(logits, label.shape[-2:])
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
    predicted = logits.sigmoid()
    overlap, total = (x.sum((1, 2, 3)) for x in (predicted * target, predicted + target))
    dice = 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)
    return cross_entropy + dice.mean()
