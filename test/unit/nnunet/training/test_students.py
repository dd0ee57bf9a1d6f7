from pathlib import Path

import numpy as np
import pytest

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.images import write_image
from gc_panther.nnunet.training.jobs.worker import PredictJob
from gc_panther.nnunet.training.students import label_images, pseudo_labels
from gc_panther.nnunet.training.workspace import Workspace


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((2, 3, 4), value, np.uint8)
    write_image(Volume(array, Geometry((4, 3, 2), (1.0, 1.0, 1.0))), path)


@pytest.mark.parametrize(("images", "sizes"), [(3, [1, 1, 1]), (10, [2, 2, 1, 1, 1, 1, 1, 1])])
def test_teachers_share_the_images_out_in_four_jobs_per_job_that_runs(tmp_path, images, sizes):
    jobs = []

    class Engine:
        def threads(self, processes):
            return 3

        def run(self, processes):
            jobs.extend(
                PredictJob.model_validate_json(Path(process.arguments[0]).read_bytes())
                for process in processes
            )
            return []

    space = Workspace(tmp_path, jobs=2, engine=Engine())
    named = {f"case {n}": tmp_path / f"{n}_0000.mha" for n in range(images)}
    out = tmp_path / "out"
    label_images(space, "label", model=tmp_path / "m", folds=(0, 2), images=named, out=out)
    assert [len(job.images) for job in jobs] == sizes
    assert [job.title for job in jobs] == [
        f"label {k + 1} of {len(sizes)}" for k in range(len(sizes))
    ]
    assert {(job.model, job.folds, job.threads) for job in jobs} == {(tmp_path / "m", (0, 2), 3)}
    shared = sorted((one.image, one.label) for job in jobs for one in job.images)
    assert shared == sorted((path, out / f"{case}.mha") for case, path in named.items())


def test_label_maps_of_pure_background_are_dropped_and_counted(tmp_path):
    images = {name: tmp_path / f"{name}_0000.mha" for name in ("a", "b", "c")}
    for name, value in (("a", 0), ("b", 2), ("c", 1)):
        write(tmp_path / f"{name}.mha", value)
    found = pseudo_labels(images, tmp_path)
    assert [case.name for case in found.cases] == ["b", "c"]
    assert found.cases[0].image == images["b"]
    assert found.dropped == ("a",)
    assert str(found) == "2 pseudo-labelled cases, 1 dropped as pure background"
    assert not pseudo_labels({"a": images["a"]}, tmp_path).cases
