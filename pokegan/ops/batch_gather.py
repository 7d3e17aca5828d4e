"""Pictures of a resident uint8 set to a normalised batch: flip, shift and normalise in one pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pokegan.ops.extension import status

_USE = status()  # fixed for the process, so a compiled function sees a constant


def batch_gather(
    images: Tensor,
    indices: Tensor,
    flip: Tensor | None = None,
    shift: Tensor | None = None,
    background: Sequence[int] = (255, 255, 255),
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Gather pictures, mirror and move them, and normalise their bytes to [-1, 1].

    Args:
        images: [N, H, W, 3] uint8, contiguous.
        indices: [B] int64 in [0, N), on the device of `images`.
        flip: [B] bool, mirror left to right, or None for no flips.
        shift: [B, 2] int64, pixels to move (down, right) after the flip, or None.
        background: red, green, blue in [0, 255]: what a shift uncovers.
        dtype: float32 or bfloat16.

    Returns:
        [B, 3, H, W] of `dtype`, channels_last: (2 v - 255) / 255 of each byte v, rounded once.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or device, or (on the CPU) an index is
            out of range. On CUDA an index out of range stops the kernel with a CUDA error.
    """
    implementation = _compiled if _is_compiled(images) else batch_gather_reference
    return implementation(images, indices, flip, shift, background, dtype)


def batch_gather_reference(
    images: Tensor,
    indices: Tensor,
    flip: Tensor | None = None,
    shift: Tensor | None = None,
    background: Sequence[int] = (255, 255, 255),
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Do what `batch_gather` does, in plain PyTorch."""
    _check(images, indices, flip, shift, background, dtype)
    picked = images[indices]  # [B, H, W, 3] uint8
    if flip is not None:
        picked = torch.where(flip.view(-1, 1, 1, 1), picked.flip(2), picked)
    if shift is not None:
        picked = _shifted(picked, shift, background)
    values = picked.to(torch.float32).mul(2).sub(255) * (1 / 255)
    return values.to(dtype).permute(0, 3, 1, 2)


def _is_compiled(images: Tensor) -> bool:
    return _USE.cuda if images.device.type == "cuda" else _USE.cpu


def _compiled(
    images: Tensor,
    indices: Tensor,
    flip: Tensor | None,
    shift: Tensor | None,
    background: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    out: Tensor = torch.ops.pokegan.batch_gather(
        images, indices, flip, shift, list(background), dtype
    )
    return out.permute(0, 3, 1, 2)


def _shifted(pictures: Tensor, shift: Tensor, background: Sequence[int]) -> Tensor:
    batch, height, width, _ = pictures.shape
    device = pictures.device
    rows = torch.arange(height, device=device) - shift[:, :1]  # [B, H] source rows
    columns = torch.arange(width, device=device) - shift[:, 1:]  # [B, W] source columns
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    sample = torch.arange(batch, device=device)[:, None, None]
    moved = pictures[
        sample, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    # Filled on the device: a tensor made from a list would wait for a copy from the host.
    fill = torch.stack(
        [torch.full((), level, dtype=torch.uint8, device=device) for level in background]
    )
    return torch.where(inside[..., None], moved, fill)


def _check(
    images: Tensor,
    indices: Tensor,
    flip: Tensor | None,
    shift: Tensor | None,
    background: Sequence[int],
    dtype: torch.dtype,
) -> None:
    """Raise what the compiled operator raises, in the same words."""
    batch = indices.shape[0] if indices.dim() == 1 else -1
    rules = (
        (images.dtype == torch.uint8, "images must be uint8"),
        (
            images.dim() == 4 and images.shape[-1] == 3,
            "images must have the shape [N, H, W, 3]",
        ),
        (images.is_contiguous(), "images must be contiguous"),
        (
            indices.dtype == torch.int64 and indices.dim() == 1,
            "indices must be int64 of the shape [B]",
        ),
        (dtype in (torch.float32, torch.bfloat16), "dtype must be float32 or bfloat16"),
        (len(background) == 3, "background must hold 3 bytes"),
        (all(0 <= value <= 255 for value in background), "background must be in [0, 255]"),
        (indices.device == images.device, "indices must be on the device of images"),
        (
            flip is None or (flip.dtype == torch.bool and flip.shape == (batch,)),
            "flip must be bool of the shape [B]",
        ),
        (
            flip is None or flip.device == images.device,
            "flip must be on the device of images",
        ),
        (
            shift is None or (shift.dtype == torch.int64 and shift.shape == (batch, 2)),
            "shift must be int64 of the shape [B, 2]",
        ),
        (
            shift is None or shift.device == images.device,
            "shift must be on the device of images",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise RuntimeError(f"batch_gather: {message}")
    if images.device.type == "cpu" and indices.numel():
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= images.shape[0]:
            raise RuntimeError(
                f"batch_gather: indices run from {low} to {high}, outside of the set of "
                f"{images.shape[0]} images"
            )


if _USE.cpu:

    @torch.library.register_fake("pokegan::batch_gather")  # type: ignore[untyped-decorator]  # torch's
    def _fake(
        images: Tensor,
        indices: Tensor,
        flip: Tensor | None,
        shift: Tensor | None,
        background: Sequence[int],
        dtype: torch.dtype,
    ) -> Tensor:
        return images.new_empty((indices.shape[0], *images.shape[1:]), dtype=dtype)
