"""Model folders, packs and archives that were damaged, or made to do harm.

Each case changes a good model in one way. Either the model is refused with one line of a
:class:`WeightsError`, or it loads, and then its weights are the good ones, unless the change was
one of the weights themselves. Nothing runs code from a file, and nothing is written outside the
folder that an archive is unpacked to.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import math
import os
import random
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import run_cases

from gc_panther.case import Geometry, Volume
from gc_panther.errors import LONGEST_ERROR, ProcessingError, WeightsError
from gc_panther.model_identity import read_identity
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.inference.openvino_graph import GRAPH_FILE, Graph
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.model.pack import write_pack
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.runtime.archives import unpack
from gc_panther.runtime.weights import model_digest
from gc_panther.task import RunContext

#: Beyond what the test's process has; a tiny model needs some MiB.
MEMORY = 1 << 30
#: Larger windows of a changed model are not tried.
MOST_VOXELS = 1 << 16
IMAGE = Volume(
    np.random.default_rng(0).integers(1, 900, (6, 12, 12)).astype(np.int16),
    Geometry((12, 12, 6), (2.0, 2.0, 4.0)),
)
GRAPH = {"xml": "<net/>", "constants": "00" * 8}

SCALARS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 30, 255, 2**31, 2**63, 10**30),
    *(0.0, -0.0, 0.5, 1e-300, 1e308, math.nan, math.inf, -math.inf),
    *("", "0", "a" * 3000, "line\nline", "\x00", "../../outside", "/etc/passwd", "os.system"),
    *("torch.nn.ReLU", "torch.nn.Softmax2d", "torch.nn.Module", "3d_fullres", "background"),
]
VALUES = [
    *SCALARS,
    [],
    {},
    list(range(30)),
    [0] * 30,
    [[]],
    [1, 1, 1],
    [1.0, 1.0, 1.0],
    {"0": None},
]


class Canary:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def changed(document: Any, rng: random.Random) -> Any:
    """A copy of JSON-compatible values with one or two of them changed."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2))):
        places = list(_places(document))
        if not places:
            break
        parent, key = rng.choice(places)
        change = rng.randrange(6)
        if change == 0:
            del parent[key]
        elif change == 1 and isinstance(parent, dict):
            parent[rng.choice(("", "0", key * 2, "inherits_from", "previous_stage"))] = parent[key]
        elif change == 2 and isinstance(parent[key], int | float):
            parent[key] = parent[key] * rng.choice((-1, 0, 2, 1000)) + rng.choice((0, 1, 0.5))
        elif change == 3:
            other, place = rng.choice(places)
            parent[key] = copy.deepcopy(other[place])
        else:
            # A copy: a later change of it must not reach the next case, nor put it into itself.
            parent[key] = copy.deepcopy(rng.choice(VALUES))
    return document


def _places(document: Any) -> Any:
    """Container and key of every value at any depth."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes with a flipped bit, a part missing, repeated or overwritten."""
    data = bytearray(content)
    start = rng.randrange(len(data) + 1) if rng.random() < 0.7 else rng.randrange(200)
    start = min(start, max(len(data) - 1, 0))
    size = rng.choice((1, 2, 8, 64, 1000))
    change = rng.randrange(5)
    if change == 0 and data:
        data[start] ^= 1 << rng.randrange(8)
    elif change == 1:
        del data[start:]
    elif change == 2:
        del data[start : start + size]
    elif change == 3:
        data[start:start] = data[start : start + size]
    else:
        data[start : start + size] = rng.randbytes(min(size, len(data) - start))
    return bytes(data)


class Models:
    """A good model as a folder and as a pack, and ways to change them.

    Each way writes the files of ``folder`` and returns whether the weights may differ then.
    """

    def __init__(self, raw: Path, pack: Path) -> None:
        self.raw, self.pack = raw, pack
        self.good = open_model_folder(raw).read_weights(0)
        self.content = torch.load(raw / "fold_0/checkpoint_final.pth", weights_only=True)
        self.ways: list[Callable[[Path, random.Random], bool]] = [
            self.changed_document,
            self.changed_document,
            self.changed_facts,
            self.changed_tensors,
            self.damaged_file,
            self.damaged_pack,
            self.changed_manifest,
            self.changed_safetensors,
            self.code,
        ]

    def changed_document(self, folder: Path, rng: random.Random) -> bool:
        """Another value in plans, dataset.json, identity or the OpenVINO graph."""
        name = rng.choice(("plans.json", "plans.json", "dataset.json", "model.json", GRAPH_FILE))
        if rng.random() < 0.5:
            shutil.copytree(self.raw, folder)
        else:
            shutil.copytree(self.pack, folder)
        if (folder / name).is_file():
            document = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(changed(document, rng)), errors="replace")
            self.sign(folder)
        return False

    def changed_facts(self, folder: Path, rng: random.Random) -> bool:
        """Another value in what a checkpoint says; without files it is all that there is."""
        shutil.copytree(self.raw, folder)
        facts = {name: v for name, v in self.content.items() if name != "network_weights"}
        facts = copy.deepcopy(facts)
        if rng.random() < 0.5:
            (folder / "plans.json").unlink()
            (folder / "dataset.json").unlink()
        else:
            del facts["init_args"]["plans"], facts["init_args"]["dataset_json"]
        facts["inference_allowed_mirroring_axes"] = [0, 1, 2]
        facts = changed(facts, rng)
        weights = {"network_weights": self.content["network_weights"]}
        self.save({**facts, **weights} if isinstance(facts, dict) else facts, folder)
        return False

    def changed_tensors(self, folder: Path, rng: random.Random) -> bool:
        """Weights of another type, shape, name or kind."""
        shutil.copytree(self.raw, folder)
        weights = dict(self.content["network_weights"])
        name = rng.choice(list(weights))
        value = weights[name]
        dtypes = [torch.half, torch.double, torch.bfloat16, torch.int8, torch.int64, torch.bool]
        dtypes += [torch.complex64, torch.float8_e4m3fn, torch.uint16]
        with_weights: list[Callable[[], Any]] = [
            lambda: value.to(rng.choice(dtypes)),
            lambda: value.flatten()[: rng.randrange(1, 9)],
            lambda: value.flatten()[:1].expand(1 << rng.randrange(20, 50)),
            lambda: value.flatten()[:1].expand(value.shape),
            lambda: torch.full_like(value, rng.choice((math.nan, math.inf, 1e38))),
            lambda: value.to("meta"),
            lambda: value.to_sparse(),
            lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
            lambda: torch.nn.Parameter(value),
            lambda: rng.choice(VALUES),
        ]
        if rng.random() < 0.8:
            weights[name] = rng.choice(with_weights)()
        else:
            del weights[name]
            weights[rng.choice((0, None, ("a",), b"x", "", f"_orig_mod.{name}"))] = value
        self.save({**self.content, "network_weights": weights}, folder)
        return True

    def damaged_file(self, folder: Path, rng: random.Random) -> bool:
        """A file of nnU-Net's folder with damaged bytes; JSON has no checksum, weights have."""
        shutil.copytree(self.raw, folder)
        names = ("fold_0/checkpoint_final.pth", "fold_0/checkpoint_final.pth", "plans.json")
        self.damage(folder / rng.choice((*names, "dataset.json")), rng)
        return False

    def damaged_pack(self, folder: Path, rng: random.Random) -> bool:
        """A file of a pack with damaged bytes, with its digest in the manifest or without."""
        shutil.copytree(self.pack, folder)
        name = rng.choice([path.name for path in sorted(folder.iterdir())])
        self.damage(folder / name, rng)
        if name == "pack.json" or rng.random() < 0.5:
            return False
        self.sign(folder)
        return name.endswith("safetensors")

    def changed_manifest(self, folder: Path, rng: random.Random) -> bool:
        """Another value in ``pack.json``; an alias may name another tensor of the same shape."""
        shutil.copytree(self.pack, folder)
        manifest = json.loads((folder / "pack.json").read_text())
        known = manifest["aliases"]
        for _ in range(rng.randrange(1, 3)):
            part = rng.choice(list(manifest))
            manifest[part] = changed({part: manifest[part]}, rng).get(part, rng.choice(VALUES))
        (folder / "pack.json").write_text(json.dumps(manifest), errors="replace")
        return bool(manifest["aliases"] != known)

    def changed_safetensors(self, folder: Path, rng: random.Random) -> bool:
        """Another header of the weights, which the manifest knows."""
        shutil.copytree(self.pack, folder)
        path = folder / "fold_0.safetensors"
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header = json.dumps(changed(json.loads(content[8 : 8 + size]), rng)).encode()
        claimed = rng.choice((len(header), len(header), len(header), 0, 1 << 40, 1 << 63))
        path.write_bytes(struct.pack("<Q", claimed) + header + content[8 + size :])
        self.sign(folder)
        return True

    def code(self, folder: Path, rng: random.Random) -> bool:
        """A checkpoint that runs code where it is unpickled without care."""
        shutil.copytree(self.raw, folder)
        canary = Canary(folder.parent / "outside" / "trace")
        content = {**self.content, "init_args": dict(self.content["init_args"])}
        place = rng.choice((content, content["init_args"]))
        place[rng.choice(("logging", "plans", "configuration", next(iter(place))))] = canary
        if rng.random() < 0.3:
            weights = dict(self.content["network_weights"])
            weights[rng.choice(list(weights))] = canary
            content["network_weights"] = weights
        self.save(content, folder)
        return False

    def save(self, content: Any, folder: Path) -> None:
        torch.save(content, folder / "fold_0/checkpoint_final.pth")

    def damage(self, path: Path, rng: random.Random) -> None:
        path.write_bytes(damaged(path.read_bytes(), rng))

    def sign(self, folder: Path) -> None:
        """Let a pack's manifest know its files, as somebody who changes one on purpose would."""
        if not (folder / "pack.json").is_file():
            return
        manifest = json.loads((folder / "pack.json").read_text())
        for name in manifest["files"]:
            content = (folder / name).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            manifest["files"][name] = {"bytes": len(content), "sha256": digest}
        (folder / "pack.json").write_text(json.dumps(manifest))


def load(folder: Path, models: Models, may_differ: bool) -> None:
    """Load a model and compare it with the good one; segment something with it where that is cheap.

    Raises:
        WeightsError: it is refused.
    """
    read_identity(folder)
    model_digest(folder)
    model = open_model_folder(folder, (0,))
    if (folder / GRAPH_FILE).is_file():
        # The graph is made again then.
        with contextlib.suppress(OSError, ValueError):
            Graph.model_validate_json((folder / GRAPH_FILE).read_text())
    options = NnUNetOptions(mirroring=False, backend="torch")
    ensemble = Ensemble(model, device="cpu", options=options)
    weights = ensemble._folds._weights[0]
    assert weights.keys() == models.good.keys()
    for name, value in weights.items():
        good = models.good[name]
        assert value.dtype == good.dtype
        assert value.shape == good.shape
        assert bool(torch.isfinite(value).all())
        assert may_differ or torch.equal(value, good), f"{name} differs"
    assert len(model.mirroring_axes) <= 3
    if math.prod(ensemble._patch) <= MOST_VOXELS and min(ensemble._configuration.spacing) > 0.1:
        try:
            prediction = ensemble.predict(IMAGE, RunContext())
        except ProcessingError:
            return  # Such as weights that overflow: one line.
        assert prediction.labels_zyx.shape == IMAGE.array_zyx.shape


def check_refusal(error: WeightsError) -> None:
    """A refusal is one line that says what is wrong."""
    line = str(error)
    assert error.what
    assert error.where
    assert "\n" not in line
    assert len(line) <= LONGEST_ERROR
    assert "internal" not in line


@pytest.fixture
def models(tiny_model_folder: Callable[..., Path], tmp_path: Path) -> Models:
    raw = tiny_model_folder(folds=(0,), patch_zyx=(4, 8, 8))
    identity = {"kind": "demonstration", "title": "Tiny", "licence": "MIT", "model_card": ""}
    (raw / "model.json").write_text(json.dumps(identity))
    (raw / "MODEL_CARD.md").write_text("# Tiny\n")
    write_pack(open_model_folder(raw), tmp_path / "pack", extra={GRAPH_FILE: json.dumps(GRAPH)})
    return Models(raw, tmp_path / "pack")


# A few hundred models are loaded, some 50 ms each.
@pytest.mark.slow
def test_models(models: Models) -> None:
    torch.set_num_threads(1)

    def check(rng: random.Random) -> None:
        with tempfile.TemporaryDirectory() as place:
            outside = Path(place) / "outside"
            outside.mkdir()
            folder = Path(place) / "model"
            may_differ = rng.choice(models.ways)(folder, rng)
            try:
                load(folder, models, may_differ)
            except WeightsError as error:
                check_refusal(error)
            assert not any(outside.iterdir()), "code was run"

    failures = run_cases(check, memory_bytes=MEMORY)
    assert not failures, "\n".join(map(str, failures))


def archive_of(pack: Path, rng: random.Random) -> bytes:
    """An archive of a pack with one member that is changed, or one more."""
    buffer = io.BytesIO()
    files = {path.name: path.read_bytes() for path in sorted(pack.iterdir())}
    odd = rng.randrange(len(files) + 1)
    names = ["../outside/x", "/outside/x", "a/../../outside/x", "n" * 300, "d/" * 50 + "x", "\x07"]
    names += ["", ".", "..", "task1", "task1/plans.json", "task1/plans.json/x", "\udcff", "é" * 150]
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for number, (name, content) in enumerate((*files.items(), ("more", b"more"))):
            member = tarfile.TarInfo(f"task1/{name}")
            if number == odd:
                member.name = rng.choice((*names, member.name))
                member.type = rng.choice((*kinds, tarfile.REGTYPE, tarfile.REGTYPE))
                member.linkname = rng.choice(("../outside", "/etc/passwd", "plans.json"))
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return buffer.getvalue()


@pytest.mark.slow
def test_archives(models: Models) -> None:
    import gzip

    torch.set_num_threads(1)

    def check(rng: random.Random) -> None:
        with tempfile.TemporaryDirectory() as place:
            outside, folder = Path(place) / "outside", Path(place) / "model"
            outside.mkdir()
            folder.mkdir()
            content = archive_of(models.pack, rng)
            if rng.random() < 0.3:
                content = damaged(content, rng)
            if packed := rng.random() < 0.7:
                content = gzip.compress(content, 1)
            if rng.random() < 0.3:
                content = damaged(content, rng)
            path = Path(place) / ("model.tar.gz" if packed else "model.tar")
            path.write_bytes(content)
            try:
                unpack(path, folder)
                load(folder / "task1", models, may_differ=False)
            except WeightsError as error:
                check_refusal(error)
            assert {entry.name for entry in Path(place).iterdir()} == {
                *("outside", "model", path.name)
            }
            assert not any(outside.iterdir()), "a file was written outside the folder"
            assert not any(entry.is_symlink() for entry in folder.rglob("*"))

    failures = run_cases(check, memory_bytes=MEMORY)
    assert not failures, "\n".join(map(str, failures))
