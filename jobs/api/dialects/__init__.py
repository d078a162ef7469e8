"""The replaced systems' own addresses and words, over the same lifecycle: a dialect translates and decides nothing.

They are left out of the API's schema: docs/moving/ tells them, per system. Bodies are read as JSON whatever their
Content-Type says, as the documents' `curl -d` calls need. What a document does not name is refused in our own words.
"""

from ..jobs import JobView
from ..parsers import AnyTypeJSONParser


class DialectView(JobView):
    """A view of a replaced system's document."""

    schema = None
    parser_classes = [AnyTypeJSONParser]
