"""Indices into the learned tables of relative positions, as the published code has them."""

import math

import torch


def map_offsets(window: int, extension: int) -> torch.Tensor:
    """Entry of the table of a map for each pair, [window^2, (window + 2 extension)^2].

    The stride of rows is smaller than the range of columns, so that some offsets share an entry:
    weights are trained so.
    """
    queries = torch.arange(window)
    keys = torch.arange(-extension, window + extension)
    offset = queries[:, None] - keys[None] + extension + window - 1
    rows = offset[:, None, :, None] * (2 * extension + window)
    return (rows + offset[None, :, None, :]).flatten(2).flatten(0, 1)


def map_entries(window: int, extension: int) -> int:
    """Entries of that table."""
    return 2 * (window + extension - 1) * (2 * extension + window + 1) + 1


def t5_buckets(window: int, extension: int) -> int:
    """How many buckets T5's bias has."""
    return max(min((window + extension) // 2, 64), 16)


def t5_bucket_of(
    queries: int, keys: int, window: int, extension: int, *, is_causal: bool
) -> torch.Tensor:
    """T5's bucket for each pair of indices, [queries, keys]. ValueError if one has none."""
    buckets, max_distance = t5_buckets(window, extension), window + extension
    distance = torch.arange(queries)[:, None] - torch.arange(keys)[None]
    base = torch.zeros_like(distance)
    if is_causal:
        distance = distance.clamp(min=0)
    else:
        buckets //= 2
        base, distance = torch.where(distance < 0, buckets, 0), distance.abs()
    exact = buckets // 2
    far = torch.log(distance.clamp(min=1).float() / exact)
    if max_distance == exact:  # a division by nothing
        far = torch.full_like(far, -math.inf)
    else:
        far /= math.log(max_distance / exact)
    far = exact + (far * (buckets - exact)).clamp(min=-2 * buckets).long()
    bucket = base + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))
    if bucket.min() < 0:
        farthest = distance[bucket < 0].max()
        raise ValueError(
            f"window_size is {window}, too short for use_t5_rpe: max_distance is {max_distance}, "
            f"must be above {exact}: there is no bucket for places {farthest} apart"
        )
    return bucket
