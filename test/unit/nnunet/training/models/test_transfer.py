import pytest
import torch
from torch import nn

from gc_panther.errors import WeightsError
from gc_panther.nnunet.training.models.transfer import read_weights, transfer_weights


class Net(nn.Module):
    def __init__(self, classes, width=3):
        super().__init__()
        self.encoder = nn.Conv3d(1, width, 3)
        self.decoder = nn.Module()
        self.decoder.seg_layers = nn.ModuleList([nn.Conv3d(width, classes, 1)])


def test_heads_stay_fresh_and_are_reported():
    source, target = Net(3), Net(2)
    fresh = {name: value.clone() for name, value in target.state_dict().items()}
    report = transfer_weights(target, source.state_dict(), heads=False)
    heads = ("decoder.seg_layers.0.bias", "decoder.seg_layers.0.weight")
    assert report.fresh == heads
    assert report.unused == heads
    assert torch.equal(target.encoder.weight, source.encoder.weight)
    for name in heads:
        assert torch.equal(target.state_dict()[name], fresh[name])
        assert name in str(report)


def test_heads_of_the_same_shape_are_only_taken_when_asked_for():
    source = Net(3)
    assert transfer_weights(Net(3), source.state_dict(), heads=False).fresh
    target = Net(3)
    assert not transfer_weights(target, source.state_dict(), heads=True).fresh
    head = "decoder.seg_layers.0.weight"
    assert torch.equal(target.state_dict()[head], source.state_dict()[head])


def test_heads_of_fewer_labels_take_theirs_by_row():
    source, target = Net(3), Net(2)
    report = transfer_weights(target, source.state_dict(), heads=True, rows=(0, 2))
    assert not report.fresh
    for name in ("decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"):
        assert torch.equal(target.state_dict()[name], source.state_dict()[name][[0, 2]])
    assert torch.equal(target.encoder.weight, source.encoder.weight)


def test_another_architecture_is_refused():
    with pytest.raises(WeightsError, match="0 of 2 tensors fit"):
        transfer_weights(Net(3), Net(3, width=5).state_dict(), heads=False)


class Trap:
    def __reduce__(self):
        return (print, ("code from the file ran",))


@pytest.mark.parametrize("content", [{"network_weights": Trap()}, {"other": 1}, [1]])
def test_files_that_are_no_plain_checkpoints_are_refused(tmp_path, content, capsys):
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"checkpoint\.pth"):
        read_weights(path)
    assert not capsys.readouterr().out


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "missing.pth")
    (tmp_path / "damaged.pth").write_bytes(b"PK not a checkpoint")
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "damaged.pth")
