"""Object detection and classification heads: non-maximum suppression and `classify`."""

from __future__ import annotations

import torch

from parity.mil.operators.registry import Context, operator

_STATIC = ("iou_threshold", "score_threshold", "max_boxes", "per_class_suppression")


def _selected(
    boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, score_threshold: float, limit: int, by_class: bool
) -> torch.Tensor:
    """Return indices of the boxes (B, 4: x, y, width, height about the centre) that survive, best first.

    A box's score is its best class's. At least one box survives, the best one, as Core ML has it.
    """
    best, classes = scores.max(dim=1)
    centre, size = boxes[:, :2], boxes[:, 2:]
    low, high, area = centre - 0.5 * size, centre + 0.5 * size, size[:, 0] * size[:, 1]
    order = torch.argsort(best, descending=True, stable=True)
    candidates = order[best[order] > score_threshold]
    kept: list[int] = []
    while len(candidates) and len(kept) < limit:
        first, candidates = int(candidates[0]), candidates[1:]
        kept.append(first)
        overlap = torch.minimum(high[candidates], high[first]) - torch.maximum(low[candidates], low[first])
        intersection = overlap.clamp(min=0).prod(dim=1)
        suppressed = intersection / (area[candidates] + area[first] - intersection) > iou_threshold
        if by_class:
            suppressed &= classes[candidates] == classes[first]
        candidates = candidates[~suppressed]
    return torch.tensor(kept, dtype=torch.int64) if kept else best.argmax().reshape(1)


def _suppress(
    boxes: torch.Tensor, scores: torch.Tensor, iou: float, score: float, limit: int, by_class: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = boxes.shape[0]
    out_boxes = boxes.new_zeros(batch, limit, 4)
    out_scores = scores.new_zeros(batch, limit, scores.shape[2])
    out_indices = torch.full((batch, limit), -1, dtype=torch.int32)
    counts = torch.zeros(batch, dtype=torch.int32)
    for entry in range(batch):
        kept = _selected(boxes[entry], scores[entry], iou, score, limit, by_class)[:limit]
        count = len(kept)
        out_boxes[entry, :count] = boxes[entry, kept]
        out_scores[entry, :count] = scores[entry, kept]
        out_indices[entry, :count] = kept.int()
        counts[entry] = count
    return out_boxes, out_scores, out_indices, counts


@operator("non_maximum_suppression", exact=True, static=_STATIC)
def non_maximum_suppression_ios15(
    context: Context,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float,
    score_threshold: float,
    max_boxes: int,
    per_class_suppression: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes (n, B, 4) and scores (n, B, K) to the surviving ones, their indices (padded by -1) and their number."""
    return _suppress(boxes, scores, iou_threshold, score_threshold, max_boxes, per_class_suppression)


@operator(
    "non_maximum_suppression",
    exact=True,
    since="iOS17",
    static=("iou_threshold", "max_boxes", "per_class_suppression"),
)
def non_maximum_suppression(
    context: Context,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float,
    max_boxes: int,
    per_class_suppression: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same with boxes last, (n, 4, B) and (n, K, B), no score threshold and no number."""
    out_boxes, out_scores, indices, _ = _suppress(
        boxes.mT, scores.mT, iou_threshold, -torch.inf, max_boxes, per_class_suppression
    )
    return out_boxes.mT, out_scores.mT, indices


@operator("classify", exact=True, static=("classes",))
def classify(
    context: Context, probabilities: torch.Tensor, classes: tuple[str | int, ...]
) -> tuple[str | torch.Tensor, dict[str | int, float]]:
    """The label of the largest probability, and all probabilities by label."""
    values = probabilities.flatten()
    label = classes[int(values.argmax())]
    by_label = dict(zip(classes, values.tolist(), strict=True))
    return label if isinstance(label, str) else torch.tensor(label), by_label
