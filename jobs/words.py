"""Numbers as people read them."""


def span(seconds: float) -> str:
    """A duration: `1.5 s`, `42 s`, `7 min`, `3 h`, `12 d`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def tokens(count: int) -> str:
    """`1 token`, `8 tokens`."""
    return f"{count} token{'' if count == 1 else 's'}"
