import pytest

from gc_panther.panther.phantom import generate_phantom

#: A whole abdomen on few voxels: about half a second a case.
SMALL = {"size_xyz": (96, 78, 40), "spacing_xyz": (3.9, 3.9, 5.4)}


@pytest.fixture(scope="session")
def small():
    return SMALL


@pytest.fixture(scope="session")
def phantoms():
    """Three small phantoms of either task."""
    return {
        task: [generate_phantom(task, 11, case=case, **SMALL) for case in range(3)]
        for task in ("task1", "task2")
    }
