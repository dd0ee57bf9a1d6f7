"""What a checkpoint's tensors may be, and what becomes of those of another type."""

import zipfile
from pathlib import Path

import pytest
import torch

from gc_panther.errors import WeightsError
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.model.tensors import sound_weights


@pytest.fixture
def folder(tiny_model_folder):
    return tiny_model_folder(folds=(0,))


def checkpoint_of(folder):
    return folder / "fold_0" / "checkpoint_final.pth"


def save_weights(folder, change):
    """Rewrite the weights of a checkpoint by a function of a tensor."""
    content = torch.load(checkpoint_of(folder), weights_only=True)
    changed = {}
    for name, value in content["network_weights"].items():
        place = (value.data_ptr(), value.shape)
        changed.setdefault(place, (change(value), []))[1].append(name)
    weights = {name: value for value, names in changed.values() for name in names}
    torch.save({**content, "network_weights": weights}, checkpoint_of(folder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_single_with_a_line_in_the_log(dtype, folder, caplog):
    before = open_model_folder(folder).read_weights(0)
    save_weights(folder, lambda value: value.to(dtype))
    with caplog.at_level("INFO"):
        weights = open_model_folder(folder).read_weights(0)
    assert all(torch.equal(weights[name], before[name].to(dtype).float()) for name in before)
    name = str(dtype).removeprefix("torch.")
    assert caplog.messages == [
        f"converted weights of type {name} to float32: {checkpoint_of(folder)}"
    ]
    storages = [{v.untyped_storage().data_ptr() for v in w.values()} for w in (before, weights)]
    assert len(storages[0]) == len(storages[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.to(torch.complex64), "of type complex64"),
        (lambda value: value.to(torch.int32), "of type int32"),
        (lambda value: value.to(torch.int64), "of type int64"),
        (lambda value: value > 0, "of type bool"),
        pytest.param(
            lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
            "of type qint8",
            marks=[
                # torch: quantized tensors are deprecated, and saved by deprecated means.
                pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
                pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
            ],
        ),
        (lambda value: value.to_sparse(), "not a dense tensor"),
        (lambda value: value.to("meta"), "not a dense tensor"),
        (lambda value: value.flatten()[:1].expand(1 << 40), "larger than its memory"),
        (lambda value: 1.0, "is a float, not a tensor"),
        (lambda value: value.double() * 1e300, "NaN or infinity"),
    ],
)
def test_what_no_weights_can_be_is_refused(change, said, folder):
    save_weights(folder, change)
    with pytest.raises(WeightsError, match=said) as caught:
        open_model_folder(folder).read_weights(0)
    assert str(checkpoint_of(folder)) in str(caught.value)


def test_names_have_to_be_text(folder):
    content = torch.load(checkpoint_of(folder), weights_only=True)
    content["network_weights"][3] = torch.zeros(1)
    torch.save(content, checkpoint_of(folder))
    with pytest.raises(WeightsError, match="name of a network weight is not text"):
        open_model_folder(folder).read_weights(0)


def test_a_name_with_and_without_the_compilers_prefix_is_refused():
    weights = {"a": torch.zeros(1), "_orig_mod.a": torch.ones(1)}
    with pytest.raises(WeightsError, match="the same name"):
        sound_weights(weights, Path("checkpoint.pth"))


def test_counters_of_norms_stay_whole_numbers():
    weights = {"norm.num_batches_tracked": torch.tensor(3)}
    assert sound_weights(weights, Path("c"))["norm.num_batches_tracked"].dtype == torch.int64


def test_a_flipped_bit_in_a_weight_is_noticed(folder):
    with zipfile.ZipFile(checkpoint_of(folder)) as archive:
        (entry, *_) = (e for e in archive.infolist() if "/data/" in e.filename)
        content = archive.read(entry)
    data = bytearray(checkpoint_of(folder).read_bytes())
    data[data.index(content) + 1] ^= 1
    checkpoint_of(folder).write_bytes(data)
    model = open_model_folder(folder)
    with pytest.raises(WeightsError, match="checksum differs"):
        model.read_weights(0)


def test_a_flipped_bit_in_what_names_the_weights_is_noticed(folder):
    data = bytearray(checkpoint_of(folder).read_bytes())
    data[data.index(b"seg_layers")] ^= 1
    checkpoint_of(folder).write_bytes(data)
    with pytest.raises(WeightsError, match="cannot be read"):
        open_model_folder(folder)
