"""Integer division that rounds up. Standard library only."""


def ceil_div(value: int, by: int) -> int:
    """Smallest integer that is at least `value` / `by`, for a positive `by`."""
    return -(-value // by)


def round_up_to_multiple(value: int, of: int) -> int:
    """Smallest multiple of `of` that is at least `value`."""
    return ceil_div(value, of) * of
