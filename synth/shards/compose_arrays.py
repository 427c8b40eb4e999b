"""The pixels of views in numpy, a few views at a time, so that all of a step's numbers are in the processor's cache.

On one core it takes 0.003 ms for a view of 28x28 pixels and 0.3 ms for one of 3x224x224, or 1.6 ms with a crop. That is
5 to 16 times as fast as the same arithmetic in torch (`compose_tensors`).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from synth.shards.compose_tensors import taps
from synth.shards.view_recipes import (
    DOWN,
    HEIGHT,
    LEFT,
    MIRRORED,
    PARTNER_DOWN,
    PARTNER_RIGHT,
    RIGHT,
    SHARE,
    TOP,
    WHOLE,
    WIDTH,
)

PIECE = 2**18  # numbers of the views computed at once


def compose_arrays(own: np.ndarray, partner: np.ndarray, recipes: np.ndarray) -> np.ndarray:
    """As `synth.shards.views.compose`, for arrays."""
    views = np.empty_like(own)
    at_once = max(1, PIECE // max(1, own[:1].size))
    for start in range(0, len(own), at_once):
        rows = slice(start, start + at_once)
        views[rows] = composed(own[rows], partner[rows], recipes[rows])
    return views


def composed(own: np.ndarray, partner: np.ndarray, recipes: np.ndarray) -> np.ndarray:
    share = recipes[:, SHARE].astype(np.uint16)[:, None, None, None]
    mixed = shifted(own, recipes[:, DOWN], recipes[:, RIGHT]) * share  # uint16 holds WHOLE * 255
    mixed += shifted(partner, recipes[:, PARTNER_DOWN], recipes[:, PARTNER_RIGHT]) * (WHOLE - share)
    mixed += WHOLE // 2
    mixed //= WHOLE
    pixels = mixed.astype(np.uint8)
    if (recipes[:, [HEIGHT, WIDTH]] != own.shape[2:]).any():
        pixels = cropped(pixels, recipes)
    mirrored = recipes[:, MIRRORED] != 0
    pixels[mirrored] = pixels[mirrored, :, :, ::-1]
    return pixels


def shifted(images: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Images (M, C, H, W) moved by these numbers of pixels (M,), with their borders repeated."""
    count, channels, height, width = images.shape
    edge = int(max(abs(down).max(), abs(right).max()))
    if edge == 0:
        return images
    wide = np.empty((count, channels, height + 2 * edge, width + 2 * edge), dtype=np.uint8)
    inner = slice(edge, -edge)
    wide[:, :, inner, inner] = images
    wide[:, :, inner, :edge], wide[:, :, inner, -edge:] = images[..., :1], images[..., -1:]
    wide[:, :, :edge], wide[:, :, -edge:] = wide[:, :, edge : edge + 1], wide[:, :, -edge - 1 : -edge]
    windows = sliding_window_view(wide, (height, width), axis=(2, 3))
    return windows[np.arange(count), :, edge - down, edge - right]


def cropped(images: np.ndarray, recipes: np.ndarray) -> np.ndarray:
    """As `compose_tensors.cropped`: first each line, then the lines."""
    count, channels, height, width = images.shape
    boxes = torch.from_numpy(recipes)
    columns, further, right = taps(boxes[:, LEFT], boxes[:, WIDTH], width)
    rows, lower, down = (part.numpy() for part in taps(boxes[:, TOP], boxes[:, HEIGHT], height))
    share = right.numpy().astype(np.uint16)[:, None, None, :]
    near, far = (
        torch.from_numpy(images).gather(3, of[:, None, None, :].expand(images.shape)).numpy()  # quicker than numpy's
        for of in (columns, further)
    )
    lines = near * (WHOLE - share)
    lines += far * share
    image, channel = np.arange(count)[:, None, None], np.arange(channels)[:, None]
    share_down = down.astype(np.uint32)[:, None, :, None]
    mixed = lines[image, channel, rows[:, None]] * (WHOLE - share_down)
    mixed += lines[image, channel, lower[:, None]] * share_down
    mixed += WHOLE * WHOLE // 2
    mixed //= WHOLE * WHOLE
    return mixed.astype(np.uint8)
