"""Artefacts: a fitted model as bytes that are safe to load, and back.

An artefact is a skops archive of the pipeline and its categories, and of an online learner how far
it has come. Loading builds only types that skops trusts by itself (scikit-learn's estimators,
numpy's arrays) and those named in `ALLOWED`; what an archive says about itself is never asked. The
same fit gives the same bytes.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import skops.io
from msgspec import Struct
from numpy.typing import NDArray

from models.additive import additive
from models.features import Coder, Row
from models.spec import ModelSpec
from models.threads import one_thread

#: Types that artefacts may hold beside those that skops trusts. Fixed here, by name, for good.
ALLOWED: Final = (
    "numpy.dtype",  # of the one-hot encoder
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "functools.partial",  # of check_array, by which boosting passes numeric columns on
    "sklearn.utils.validation.check_array",
)
MAX_UNPACKED_BYTES = 1_073_741_824
MAX_FILES = 100_000
MAX_SCHEMA_BYTES = 67_108_864
MAX_RATIO = 200  # unpacked to packed; our own reach 20
FREE_BYTES = 16_777_216  # that may be unpacked whatever the ratio
LARGEST = 1e30  # inputs are cut there: a finite but absurd number must not overflow to infinity

_SCHEMA = "schema.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold


class BadArtefact(ValueError):
    """The bytes are not an artefact of this model, or one that must not be loaded."""


class Taught(Struct, frozen=True, kw_only=True):
    """How far a version of an online learner has come.

    Attributes:
        until_ms: when the last label came that it has learnt from.
        events: how many it has learnt from, over all lessons.
        mean, scale: of a regression's labels in the first lesson; weights are in these units.
    """

    until_ms: int
    events: int
    mean: float = 0.0
    scale: float = 1.0


class ServingModel:
    """A fitted pipeline with what turns rows into its inputs.

    Attributes:
        taught: how far an online learner has come; None for any other.
    """

    def __init__(
        self, spec: ModelSpec, coder: Coder, pipeline: Any, taught: Taught | None = None
    ) -> None:
        self.spec = spec
        self.taught = taught
        self.coder = coder
        self.pipeline = pipeline
        self._predictor = additive(pipeline, coder) or pipeline

    def predict(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Shape (rows, spec.outputs): P(positive class), one P per class, or the value."""
        if not rows:
            return np.empty((0, self.spec.outputs))
        one_thread()
        return self._predict(self._predictor, rows)

    def _predict(self, predictor: Any, rows: Sequence[Row]) -> NDArray[np.float64]:
        matrix = self.coder.matrix(rows)
        np.clip(matrix, -LARGEST, LARGEST, out=matrix)
        if self.spec.task == "regression":
            values: NDArray[np.float64] = predictor.predict(matrix).reshape(-1, 1)
            return values
        known = predictor.predict_proba(matrix)
        classes = self.pipeline.classes_.astype(np.intp)
        # A class that training never saw has probability 0.
        outputs = np.zeros((len(rows), max(2, self.spec.outputs)))
        outputs[:, classes] = known
        return outputs[:, 1:] if self.spec.task == "binary" else outputs

    def warm_up(self) -> None:
        """Predict a synthetic batch: nulls, zeros, every category's first, and an unseen one.

        Raises:
            BadArtefact: the model cannot, or its outputs are not finite, or not this spec's.
        """
        coded = self.coder.categories
        rows: list[Row] = [
            tuple(None for _ in coded),
            tuple(0.0 if known is None else "\0" for known in coded),
            tuple(1.0 if known is None else next(iter(known), None) for known in coded),
        ]
        try:
            outputs = self.predict(rows)
            same = np.allclose(outputs, self._predict(self.pipeline, rows), atol=1e-9)
        except Exception as error:
            raise BadArtefact(f"the model cannot predict: {_sentence(error)}") from error
        if outputs.shape != (len(rows), self.spec.outputs) or not np.isfinite(outputs).all():
            raise BadArtefact(f"the model's outputs are {outputs.shape}, or not finite")
        if not same:
            raise BadArtefact("the short form of the pipeline gives other outputs")


def dump(model: ServingModel) -> bytes:
    """The artefact's bytes: the same for the same numbers.

    The numbers of a linear fit may differ in their last bits between kinds of processor, as BLAS
    picks its kernels by them.
    """
    state: dict[str, Any] = {
        "categories": [None if known is None else list(known) for known in model.coder.categories],
        "pipeline": model.pipeline,
    }
    if model.taught is not None:
        state["taught"] = msgspec.to_builtins(model.taught)
    return _normalised(skops.io.dumps(state))


def load(data: bytes, spec: ModelSpec) -> ServingModel:
    """Build the model that `dump` wrote.

    Raises:
        BadArtefact: not an artefact, too large, of types not allowed, or not of this spec, of which
            it may know the first features only, if the others are optional.
    """
    _check_archive(data)
    try:
        state = skops.io.loads(data, trusted=list(ALLOWED))
        coder = Coder(tuple(k if k is None else tuple(k) for k in state["categories"]))
        pipeline = state["pipeline"]
        width = pipeline.n_features_in_
        taught = msgspec.convert(state.get("taught"), Taught | None)
        model = ServingModel(spec, coder, pipeline, taught)
    except Exception as error:  # hostile bytes may fail in any way
        raise BadArtefact(_sentence(error)) from error
    kinds = tuple("numeric" if known is None else "categorical" for known in coder.categories)
    known, since = spec.features[:width], spec.features[width:]
    fits = width == len(kinds) and kinds == tuple(feature.type for feature in known)
    if not fits or not all(feature.optional for feature in since):
        raise BadArtefact(f"made for {width} features ({', '.join(kinds)[:200]}), not this spec's")
    return model


def _check_archive(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadArtefact(f"not an archive: {error}") from error
    unpacked = sum(info.file_size for info in infos)
    limit = min(MAX_UNPACKED_BYTES, max(FREE_BYTES, MAX_RATIO * len(data)))
    if len(infos) > MAX_FILES or unpacked > limit:
        raise BadArtefact(f"unpacks to {len(infos)} files of {unpacked} bytes in all")
    if len({info.filename for info in infos}) < len(infos):
        raise BadArtefact("two files of the archive have one name")
    for info in infos:
        _check_member(info)


def _check_member(info: zipfile.ZipInfo) -> None:
    """A plain file at the top of the archive, packed in a way whose size is known beforehand.

    `zipfile` never unpacks more than `file_size`, which the caller has added up.
    """
    if "/" in info.filename or "\\" in info.filename or info.filename in ("", ".", ".."):
        raise BadArtefact(f"the archive names a path: {info.filename[:100]!r}")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise BadArtefact(f"{info.filename[:100]!r} in the archive is no plain file")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise BadArtefact(f"{info.filename[:100]!r} is packed in a way that is not accepted")
    if info.filename == _SCHEMA and info.file_size > MAX_SCHEMA_BYTES:
        raise BadArtefact(f"{_SCHEMA} has {info.file_size} bytes")


def _normalised(data: bytes) -> bytes:
    """The archive without memory addresses and times, compressed.

    skops names shared objects and files by their address in memory; here they are numbered in the
    order in which the schema mentions them.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    schema = json.loads(files.pop(_SCHEMA))
    names: dict[str, str] = {}
    _renumber(schema, {}, names)
    renamed = {names[name]: content for name, content in files.items()}
    renamed[_SCHEMA] = json.dumps(schema, separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(renamed):
            archive.writestr(
                zipfile.ZipInfo(name, _EPOCH), renamed[name], compress_type=zipfile.ZIP_DEFLATED
            )
    return buffer.getvalue()


def _renumber(node: Any, ids: dict[int, int], names: dict[str, str]) -> None:
    if isinstance(node, list):
        for child in node:
            _renumber(child, ids, names)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("__id__"), int):
        node["__id__"] = ids.setdefault(node["__id__"], len(ids) + 1)
    if isinstance(node.get("file"), str):
        suffix = node["file"].rpartition(".")[2]
        node["file"] = names.setdefault(node["file"], f"{len(names) + 1:06d}.{suffix}")
    for child in node.values():
        _renumber(child, ids, names)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
