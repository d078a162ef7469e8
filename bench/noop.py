"""NOOP: the kind that does nothing, for one token. Enabled by JOBSITE_KINDS=bench.noop."""

from rest_framework import serializers

from jobs.kinds.base import Kind, register


@register
class Noop(Kind):
    """Charged, queued, claimed, settled: all that is left of a job without its work."""

    name = "NOOP"
    queue = "cpu"
    media = False

    class Params(serializers.Serializer):
        pass

    def price(self, params):
        return 1

    def run(self, run):
        pass
