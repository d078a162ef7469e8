"""KITCHEN: a kind for tests that misbehaves as its params say. Enabled by JOBSITE_KINDS=tests.kitchen."""

import os
import subprocess
import time

from rest_framework import serializers

from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import Kind, Limits, register


@register
class Kitchen(Kind):
    """Sleeps, fails, stalls, ignores exceptions or leaks a child. One output: `dish.txt`."""

    name = "KITCHEN"
    queue = "cpu"
    limits = Limits(run=20, stall=5)
    tiers = ("BIG",)
    media = False

    class Params(serializers.Serializer):
        seconds = serializers.FloatField(min_value=0, max_value=3600, default=0)  # of visible work
        fail_times = serializers.IntegerField(min_value=0, max_value=100, default=0)  # attempts that fail first
        code = serializers.CharField(max_length=40, default="internal_error")  # what they fail with
        stall = serializers.BooleanField(default=False)  # sleep without progress
        stubborn = serializers.BooleanField(default=False)  # ignore every exception
        leak_child = serializers.BooleanField(default=False)  # leave a process behind
        leak_orphan = serializers.BooleanField(default=False)  # … in a session of its own, its parent gone
        gobble = serializers.BooleanField(default=False)  # ask for memory until there is no more
        price = serializers.IntegerField(min_value=0, max_value=1000, default=1)
        output = serializers.BooleanField(default=True)
        bytes = serializers.IntegerField(min_value=0, max_value=1 << 26, default=0)  # that the output has besides

    def price(self, params):
        return params["price"]

    def tier(self, params):
        return "BIG" if params["price"] >= 100 else ""

    def run(self, run):
        params = run.params
        assert run.workdir.is_dir()  # it is made when asked for, as nearly every kind does
        if run.lease.failures < params["fail_times"]:
            raise JobError(ErrorCode[params["code"]], "Planned by the test.")
        if params["leak_child"]:
            os.posix_spawnp("sleep", ["sleep", "3600"], {})
        if params["leak_orphan"]:
            subprocess.run(["setsid", "--fork", "sleep", "3599"], check=True, stdin=subprocess.DEVNULL)
        if params["gobble"]:
            hoard = [bytes(1 << 28)]  # not touched, so it only counts where a limit is set
            while True:
                hoard.append(bytes(len(hoard[-1]) * 4))
        until = time.monotonic() + params["seconds"]
        while (left := until - time.monotonic()) > 0:
            try:
                if not (params["stall"] or params["stubborn"]):
                    run.progress(1 - left / params["seconds"], "cooking")
                time.sleep(min(left, 0.05))
            except BaseException:
                if not params["stubborn"]:
                    raise
        if params["output"]:
            dish = run.workdir / "dish.txt"
            dish.write_text(f"attempt {run.lease.attempt}\n" + "." * params["bytes"])
            run.output(dish, "dish.txt", "text/plain")
