"""Drawing glyphs: many at once, each with its own place, size and angle."""

import numpy as np


def render(
    glyphs: np.ndarray,
    centre: np.ndarray,
    side: np.ndarray,
    angle: np.ndarray,
    size: int,
    window: np.ndarray | None = None,
) -> np.ndarray:
    """Coverage of N glyphs drawn onto canvases of `size` pixels: (N, size, size) float32 in 0-1.

    Args:
        glyphs: (N, G, G) float32 in 0-1.
        centre: (N, 2), x and y of the glyph's centre in pixels.
        side: (N,), side of the glyph's square in pixels; parts outside the canvas are cut off.
        angle: (N,), clockwise rotation in radians.
        size: side of the canvas.
        window: (N, 4), x0, y0, x1, y1 in 0-1 within the glyph's square; only this part is drawn. None draws all.
    """
    grid = np.arange(size) + 0.5
    dx = grid[None, None, :] - centre[:, 0, None, None]
    dy = grid[None, :, None] - centre[:, 1, None, None]
    cos, sin = (np.cos(angle)[:, None, None], np.sin(angle)[:, None, None])
    u = (cos * dx + sin * dy) / side[:, None, None] + 0.5
    v = (cos * dy - sin * dx) / side[:, None, None] + 0.5
    drawn = _bilinear(glyphs, u, v)
    if window is not None:
        x0, y0, x1, y1 = (edge[:, None, None] for edge in window.T)
        drawn = drawn * ((u >= x0) & (u < x1) & (v >= y0) & (v < y1))
    return drawn.astype(np.float32)


def _bilinear(glyphs: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Values of (N, G, G) at coordinates (N, S, S) in 0-1; zero outside."""
    count, side, _ = glyphs.shape
    padded = np.pad(glyphs, ((0, 0), (1, 1), (1, 1)))
    x = np.clip(u * side + 0.5, 0, side + 0.999)
    y = np.clip(v * side + 0.5, 0, side + 0.999)
    left, top = x.astype(np.int64), y.astype(np.int64)
    fx, fy = x - left, y - top
    rows = np.arange(count)[:, None, None]
    upper = padded[rows, top, left] * (1 - fx) + padded[rows, top, left + 1] * fx
    lower = padded[rows, top + 1, left] * (1 - fx) + padded[rows, top + 1, left + 1] * fx
    return upper * (1 - fy) + lower * fy


def bounding_boxes(masks: np.ndarray) -> np.ndarray:
    """Tight boxes (N, 4) float32, x0, y0, x1, y1 with exclusive last edges, of (N, S, S) masks; zeros where empty."""
    size = masks.shape[1]
    columns, rows = np.any(masks, axis=1), np.any(masks, axis=2)
    boxes = [columns.argmax(1), rows.argmax(1), size - columns[:, ::-1].argmax(1), size - rows[:, ::-1].argmax(1)]
    return (np.stack(boxes, axis=1) * columns.any(axis=1)[:, None]).astype(np.float32)


def inside_boxes(boxes: np.ndarray, size: int, margin: float = 0.0) -> np.ndarray:
    """Which pixels of a canvas lie in the boxes (N, 4) widened by `margin` pixels: (N, size, size) bool."""
    grid = np.arange(size)
    x0, y0, x1, y1 = (boxes + np.array([-margin, -margin, margin, margin])).T[:, :, None]
    in_columns, in_rows = (grid >= x0) & (grid < x1), (grid >= y0) & (grid < y1)
    return in_rows[:, :, None] & in_columns[:, None, :]
