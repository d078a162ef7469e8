"""Small charts as inline SVG, drawn on the server: no script, nothing from elsewhere."""

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from jobs.stats import HourOf

WIDTH, HEIGHT = 120, 28  # of a spark line, in its own units
BARS = 120  # height of the bars


def spark(values: Sequence[float], name: str) -> SafeString | str:
    """A line of the last values, from zero to their largest; nothing for less than two."""
    if len(values) < 2:
        return ""
    top, step = max(max(values), 1), WIDTH / (len(values) - 1)
    points = " ".join(
        f"{number * step:.1f},{HEIGHT - 2 - (HEIGHT - 4) * value / top:.1f}" for number, value in enumerate(values)
    )
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline points="{}" /></svg>',
        WIDTH,
        HEIGHT,
        f"{name}, the last hour: {values[0]:,.0f} then, {values[-1]:,.0f} now, at most {max(values):,.0f}",
        points,
    )


def hours(bars: Sequence[HourOf]) -> SafeString:
    """A bar an hour: succeeded at the bottom, then failed, then cancelled."""
    top = max((bar.ended for bar in bars), default=0) or 1
    parts = []
    for number, bar in enumerate(bars):
        y = float(BARS)
        for kind, count in (("succeeded", bar.succeeded), ("failed", bar.failed), ("canceled", bar.canceled)):
            high = BARS * count / top
            y -= high
            if count:
                said = f"{bar.at:%H}:00 UTC: {count:,} {kind}"
                parts.append((kind, number * 10 + 1, f"{y:.1f}", 8, f"{high:.1f}", said))
    return format_html(
        '<svg class="hours" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>',
        len(bars) * 10,
        BARS,
        f"Jobs ended by the hour, at most {top:,} in one hour",
        format_html_join("", '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>', parts),
    )
