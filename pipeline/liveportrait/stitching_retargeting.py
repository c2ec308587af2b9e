"""S, R_lip and R_eye: the small networks that correct keypoints (specification 3.5)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

STITCHING_WIDTHS = (126, 128, 128, 64, 65)
LIP_WIDTHS = (65, 128, 128, 64, 63)
EYE_WIDTHS = (66, 256, 256, 128, 128, 64, 63)


class KeypointMlp(nn.Module):
    """Linear layers with ReLU between them: (B, widths[0]) to (B, widths[-1])."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(x)
        return out
