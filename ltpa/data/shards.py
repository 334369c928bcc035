"""Decoding a whole split over threads: blocks of rows in, the split's arrays out, in order and without holding them."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ltpa.core.errors import DataError, MemoryFullError
from ltpa.core.text import printable
from ltpa.data.arrays import Split
from ltpa.data.decode import Stored, load_image, load_mask
from ltpa.data.listing import Listing
from ltpa.data.masks import VOID, Masks, RaggedMasks
from ltpa.data.rows import RowWriter, draft_path
from ltpa.data.source import Source

_BLOCK = 32  # rows one thread handles at a time; pixel arrays that need no decoding go in blocks 64 times that


@dataclasses.dataclass(eq=False)
class _Block:
    """Rows that could be decoded, their images, masks and what their files hold; and what is wrong with the others."""

    rows: list[int]
    images: np.ndarray
    masks: list[np.ndarray]
    stored: list[Stored]
    problems: list[str]


def prepare_split(
    folder: Path, split: str, listing: Listing, source: Source, threads: int
) -> tuple[Split, dict[str, Any]]:
    """Decode a split. Its images and masks are streamed into draft files in `folder` and come back memory-mapped.

    Returns:
        The split, and facts: median stored `width` and `height`, the images `skipped` with the reason, and with masks
        how many of these have void pixels (`void_masks`) and which images have an EXIF orientation (`turned`).

    Raises:
        DataError: a file is missing, or cannot be decoded and the option `skip_corrupt` is off; a box has no area.
        MemoryFullError: an image has too many pixels and the option `skip_corrupt` is off.
    """
    size = source.image_size
    kept: list[int] = []
    stored: list[Stored] = []
    void_masks = 0
    shapes: list[tuple[int, ...]] = []
    skipped: list[str] = []
    images_path = draft_path(folder, split, "images")
    with contextlib.ExitStack() as files:
        images = files.enter_context(RowWriter(images_path, (size, size, 3), np.uint8))
        masks = None if listing.masks is None else files.enter_context(_mask_writer(folder, split, source.mask_size))
        for block in _blocks(listing, source, threads):
            images.append(block.images)
            for mask in block.masks:
                if masks is not None:
                    masks.append(mask.reshape(-1, *masks.row))
                    shapes.append(mask.shape)
                    void_masks += bool((mask == VOID).any())
            kept += block.rows
            stored += block.stored
            skipped += block.problems
    if not kept:
        raise DataError(f"dataset {source.name}, split {split}: no image could be decoded; first: {skipped[:1]}")
    listing = listing if len(kept) == len(listing) else listing.take(kept)
    cut = source.options.crop == "box"
    sizes = np.asarray([each[:2] for each in stored])
    prepared = Split(
        images=np.load(images_path, mmap_mode="r"),
        labels=np.asarray(listing.labels, dtype=np.int64),
        ids=np.asarray(listing.ids, dtype=np.str_),
        masks=None if masks is None else _opened(masks, shapes),
        boxes=None if listing.boxes is None or cut else _scaled(np.asarray(listing.boxes), sizes, size),
        parts=None if listing.parts is None or cut else _scaled(np.asarray(listing.parts), sizes, size),
    )
    for kind, boxes in (("object", prepared.boxes), ("part", prepared.parts)):
        if boxes is not None:
            _check_area(f"dataset {source.name}, split {split}", kind, boxes, prepared.ids)
    width, height = np.median(sizes, axis=0).tolist()
    facts = {"stored_width": width, "stored_height": height, "skipped": skipped}
    if masks is not None:
        turned = [printable(name) for name, each in zip(listing.ids, stored, strict=True) if each.orientation != 1]
        facts |= {"void_masks": void_masks, "turned": turned}
    return prepared, facts


def _mask_writer(folder: Path, split: str, size: int | None) -> RowWriter:
    """Masks of one size are rows; others go pixel by pixel, one behind the other."""
    if size is None:
        return RowWriter(draft_path(folder, split, "mask_pixels"), (), np.uint8)
    return RowWriter(draft_path(folder, split, "masks"), (size, size), np.uint8)


def _opened(written: RowWriter, shapes: list[tuple[int, ...]]) -> Masks:
    masks = np.load(written.path, mmap_mode="r")
    return masks if written.row else RaggedMasks(masks, np.asarray(shapes, dtype=np.int64))


def _scaled(boxes: np.ndarray, sizes: np.ndarray, size: int) -> np.ndarray:
    """Boxes (N, 4), clipped to images of the given widths and heights (N, 2), after squashing to `size` pixels."""
    limits = np.concatenate([sizes, sizes], axis=1)
    return (np.clip(boxes, 0, limits) * (size / limits)).astype(np.float32)


def _check_area(where: str, kind: str, boxes: np.ndarray, ids: np.ndarray) -> None:
    """Raise `DataError` where a box has no area within its image. Those that are not numbers, the hidden, have none."""
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    if empty.any():
        raise DataError(
            f"{where}: the {kind} box of image {ids[empty.argmax()]} has no area within the image; extract the "
            "archives anew"
        )


def _blocks(listing: Listing, source: Source, threads: int) -> Iterator[_Block]:
    """All blocks in order. At most two per thread are in work, which bounds the memory."""
    finished = isinstance(listing.images, np.ndarray) and listing.images.shape[1:3] == (source.image_size,) * 2
    work: Callable[[Listing, Source, range], _Block] = _copy if finished and listing.masks is None else _decode
    length = 64 * _BLOCK if finished else _BLOCK
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[_Block]] = deque()
        try:
            for start in range(0, len(listing), length):
                pending.append(pool.submit(work, listing, source, range(start, min(start + length, len(listing)))))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _copy(listing: Listing, source: Source, rows: range) -> _Block:
    """Pixels that already have the wanted size; grey ones become RGB."""
    pixels = np.asarray(listing.images[rows.start : rows.stop])
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[..., None], 3, axis=3)
    return _Block(list(rows), pixels, [], [Stored(source.image_size, source.image_size)] * len(rows), [])


def _decode(listing: Listing, source: Source, rows: range) -> _Block:
    size, options = source.image_size, source.options
    images = np.empty((len(rows), size, size, 3), np.uint8)
    block = _Block([], images, [], [], [])
    for row in rows:
        box = listing.boxes[row] if options.crop == "box" and listing.boxes is not None else None
        place, in_mask = len(block.rows), False
        try:
            images[place], stored = load_image(listing.images[row], box, size, options)
            if listing.masks is not None:
                in_mask = True
                block.masks.append(load_mask(listing.masks[row], box, source.mask_size, stored))
        except DataError:
            raise
        except MemoryFullError as error:
            if not options.skip_corrupt:
                raise
            block.problems.append(_problem(listing, row, in_mask, error, skip=True))
            continue
        except Exception as error:  # Pillow's decoders raise errors of many kinds
            block.problems.append(_problem(listing, row, in_mask, error, options.skip_corrupt))
            continue
        block.rows.append(row)
        block.stored.append(stored)
    block.images = images[: len(block.rows)]
    return block


def _problem(listing: Listing, row: int, in_mask: bool, error: Exception, skip: bool) -> str:
    """Say which image or mask is broken and how; raise that unless such images are skipped."""
    image = listing.masks[row] if in_mask and listing.masks is not None else listing.images[row]
    path = image if isinstance(image, Path) else f"image {listing.ids[row]}"
    if not skip:
        raise DataError(
            f"{path}: cannot be decoded ({error}); get the file anew, from its archive where it has one, or leave such "
            "images out with option skip_corrupt"
        ) from error
    text = " ".join(str(error).replace(str(path), "").split())
    return printable(f"{listing.ids[row]}: {'its mask: ' if in_mask else ''}{text}")
