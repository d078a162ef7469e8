"""Super-resolution by an ONNX model, tile by tile, on the CPU. Only for the child of `jobs.engines.upscale`.

A model that fits takes one float tensor N x C x H x W of numbers from 0 to 1 (C is 3, RGB, or 1: then each band goes
through alone) and gives one of the same kind, larger by a whole factor. That is how ESRGAN, Real-ESRGAN, SwinIR and
others are exported. onnxruntime and NumPy are in requirements-gpu.txt.
"""

from functools import partial
from typing import Any

from jobs.engines import pictures, tool
from jobs.errors import ErrorCode, JobError

TILE = 192  # pixels of a side, where the model leaves it free
MARGIN = 12  # pixels around each tile that are computed and thrown away, so that no seam is seen


def enlarge(image, side: int, most: float, model: str, progress: tool.Progress):
    """The picture enlarged by the model, as often as it does not pass twice `side` (pixels of the longer side).

    `image` has 1 or 3 bands of numbers up to `most`. `progress` gets 0.0 to 1.0. JobError(config_error) for what is no
    model that fits.
    """
    network, passes, longest = Network(model), 0, max(image.width, image.height)
    while longest < side and network.factor * longest <= 2 * side:
        passes, longest = passes + 1, network.factor * longest
    for number in range(passes):
        image = network.enlarge(image, most, partial(_share, progress, number, passes))
    return image


def _share(progress: tool.Progress, number: int, passes: int, done: float) -> None:
    progress((number + done) / passes)


class Network:
    """A model that is loaded and was tried: its `factor`, its `channels`, and `outer`, its tile's size."""

    def __init__(self, path: str):
        try:
            import numpy
            import onnxruntime
        except ImportError as wrong:
            raise JobError(ErrorCode.config_error, "The super-resolution engine is not installed.") from wrong
        self.numpy = numpy
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 2
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as wrong:  # onnxruntime's own classes share no base
            raise misfit("it cannot be loaded") from wrong
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
            raise misfit("it must take one picture and give one")
        self.name, shape = inputs[0].name, inputs[0].shape
        self.kind = {"tensor(float)": "float32", "tensor(float16)": "float16"}.get(inputs[0].type)
        self.channels = shape[1] if isinstance(shape[1], int) else 3
        self.outer = tuple(n if isinstance(n, int) else TILE + 2 * MARGIN for n in shape[2:])
        if self.kind is None or self.channels not in (1, 3) or min(self.outer) < 4 * MARGIN:
            raise misfit("its input must be N x 3 x H x W or N x 1 x H x W of float")
        answer = self.run(numpy.zeros((1, self.channels, *self.outer), self.kind))
        factors = [answer.shape[axis] / self.outer[axis - 2] for axis in (2, 3)] if answer.ndim == 4 else [0]
        self.factor = int(factors[0])
        if len(set(factors)) != 1 or not 2 <= factors[0] <= 8 or factors[0] != self.factor:
            raise misfit("it must enlarge by a whole factor of 2 to 8")
        if answer.shape[1] != self.channels:
            raise misfit("it must give as many colours as it takes")

    def run(self, tensor: Any) -> Any:
        try:
            return self.session.run(None, {self.name: tensor})[0]
        except Exception as wrong:
            raise misfit("it fails on a picture") from wrong

    def enlarge(self, image, most: float, progress: tool.Progress):
        """The picture `factor` times as large, as numbers of 16 bits turned back to its own range."""
        np = self.numpy
        bands = image.bands
        if self.channels == 3 and bands == 1:
            image = image.bandjoin([image, image])
        pixels = (image.cast("float") / most).numpy().reshape(image.height, image.width, image.bands)
        made = np.empty((image.height * self.factor, image.width * self.factor, bands), np.uint16)
        inner = [n - 2 * MARGIN for n in self.outer]
        rows, columns = range(0, image.height, inner[0]), range(0, image.width, inner[1])
        for done, (top, left) in enumerate((top, left) for top in rows for left in columns):
            tile = self.tile(pixels, top, left)
            batch = tile[:, None] if self.channels == 1 else tile[None]
            drawn = self.run(np.ascontiguousarray(batch, dtype=self.kind)).astype(np.float32)
            drawn = (drawn[:, 0] if self.channels == 1 else drawn[0]).transpose(1, 2, 0)
            drawn = drawn.mean(axis=2, keepdims=True) if drawn.shape[2] > bands else drawn
            high, wide = (min(n, end - at) for n, end, at in zip(inner, pixels.shape, (top, left), strict=False))
            f, edge = self.factor, MARGIN * self.factor
            part = np.nan_to_num(drawn[edge : edge + high * f, edge : edge + wide * f])
            made[top * f : (top + high) * f, left * f : (left + wide) * f] = np.rint(part.clip(0, 1) * 65535)
            progress((done + 1) / (len(rows) * len(columns)))
        vips = pictures.vips().Image
        larger = vips.new_from_memory(made, made.shape[1], made.shape[0], bands, "ushort")
        return larger * (most / 65535)

    def tile(self, pixels: Any, top: int, left: int) -> Any:
        """C x H x W around (top, left), with its margin; past the picture's edge its last pixels are repeated."""
        np = self.numpy
        high, wide, _bands = pixels.shape
        rows = np.arange(top - MARGIN, top - MARGIN + self.outer[0]).clip(0, high - 1)
        columns = np.arange(left - MARGIN, left - MARGIN + self.outer[1]).clip(0, wide - 1)
        return pixels[rows][:, columns].transpose(2, 0, 1)


def misfit(why: str) -> JobError:
    """The operator's model does not do."""
    return JobError(ErrorCode.config_error, f"The super-resolution model does not fit: {why}.")
