"""Two small networks without batch norm for 32 px images, for scripts/bench-normless."""

from __future__ import annotations

from functools import partial

from timm.layers import HybridEmbed
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import nn


def vit(num_classes: int) -> nn.Module:
    """A ViT with 64 tokens, one per 4x4 pixels. Two convolutions make the tokens, which trains in a few epochs (Xiao
    et al. 2021).
    """
    stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, padding=1), nn.GELU(), nn.Conv2d(32, 64, 3, 2, padding=1))

    stem.num_features = 64  # timm reads it
    return VisionTransformer(
        img_size=32,
        patch_size=1,
        embed_layer=partial(HybridEmbed, backbone=stem, feature_size=8),
        embed_dim=64,
        depth=4,
        num_heads=2,
        mlp_ratio=2.0,
        num_classes=num_classes,
    )


def convnext(num_classes: int) -> nn.Module:
    """A ConvNeXt with four stages: LayerNorm over (B, H, W, C) in its blocks, LayerNorm2d between its stages."""
    return ConvNeXt(
        depths=(2, 2, 2, 1), dims=(40, 80, 160, 240), patch_size=2, ls_init_value=0.1, num_classes=num_classes
    )
