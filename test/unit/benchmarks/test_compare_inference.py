import sys

import compare_inference
import numpy as np
import pytest
import stock
from compare_inference import Row, Setting, kernel_times, table, update_document

from gc_panther.nnunet.model.folder import open_model_folder


def row(name, labels, seconds, stages=(), tumour_only=False):
    made = Row(name, lambda out: out, tumour_only)
    made.labels, made.seconds, made.stages = labels, seconds, list(stages)
    made.memory = [2**30] * len(seconds)
    return made


def test_the_table_compares_with_the_second_row():
    labels = np.zeros((4, 5, 5), np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    labels[0] = 2
    worse = labels.copy()
    worse[1, 1, 1] = 0
    ours = (labels == 1).astype(np.uint8)
    rows = [
        row("vote", worse, [30.0, 20.0, 40.0]),
        row("stock", labels, [10.0, 12.0, 11.0], [{"network": 8.0}] * 3),
        row("ours", ours, [5.0, 5.5, 9.0], [{"network": 3.0}] * 3, tumour_only=True),
    ]
    lines = table(rows, tumour=1).splitlines()[2:]
    assert lines[0] == "| vote | 30.0 (20.0–40.0) | 0.37 | – | – | 1.00 | 1.0e-02 | 0.93333 |"
    assert lines[1].startswith("| stock | 11.0 (10.0–12.0) | 1.00 | 8.0 | 3.0 | 1.00 | 0.0e+00 |")
    # The pancreas is in stock's labels and not in our mask: that is no difference.
    assert lines[2] == "| ours | 5.5 (5.0–9.0) | 2.00 | 3.0 | 2.5 | 1.00 | 0.0e+00 | 1.00000 |"


def test_an_earlier_checkout_is_compared_alone_with_its_own_program_and_weights(
    tmp_path, monkeypatch
):
    commands = []
    monkeypatch.setattr(compare_inference, "command", lambda words, **_: commands.append(words))
    monkeypatch.setattr(compare_inference, "_commit", lambda checkout: checkout.name)
    before = tmp_path / "earlier"
    setting = Setting(tmp_path, tmp_path, tmp_path, (0, 1), 3, "cpu", before=before)
    rows = compare_inference.rows(setting)
    for number, one in enumerate(rows):
        one.run(tmp_path / str(number))
    assert rows[0].name == "before (earlier)"
    assert [words[0] for words in commands] == [
        before / ".venv" / "bin" / "gc-panther",
        compare_inference.BIN / "gc-panther",
    ]
    weights = [words[words.index("--model-dir") + 1] for words in commands]
    assert weights == [before / "resources", tmp_path]


def test_a_command_that_fails_says_why():
    with pytest.raises(SystemExit, match="no such thing"):
        compare_inference.command([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_the_document_keeps_what_stands_around(tmp_path, monkeypatch):
    document = tmp_path / "performance.md"
    begin, end = "<!-- full-size:begin -->", "<!-- full-size:end -->"
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    monkeypatch.setattr(compare_inference, "DOCS", document)
    update_document("full-size", "new")
    assert document.read_text() == f"before\n{begin}\nnew\n{end}\nafter\n"
    update_document("full-size-gpu", "of a GPU")
    kept, _, added = document.read_text().partition("## full-size-gpu")
    assert kept == f"before\n{begin}\nnew\n{end}\nafter\n\n"
    assert "\nof a GPU\n" in added


def test_a_gpu_s_memory_has_a_column_of_its_own():
    labels = np.zeros((4, 5, 5), np.uint8)
    rows = [row("stock", labels, [2.0]), row("ours", labels, [1.0], [{"network": 0.5}])]
    for one in rows:
        one.gpu_memory = [3 * 2**30]
    header, _, stock_line, _ = table(rows, tumour=1, reference=0).splitlines()
    assert "| memory, GiB | GPU, GiB |" in header
    # No tumour in either: there is no Dice.
    assert stock_line == "| stock | 2.0 (2.0–2.0) | 1.00 | – | – | 1.00 | 3.00 | 0.0e+00 | – |"


def test_operations_are_listed_by_their_time(tiny_model_folder, write_volume, tmp_path):
    (tmp_path / "task1").symlink_to(tiny_model_folder(patch_zyx=(8, 16, 16)))
    image = write_volume(tmp_path / "image.mha")
    setting = Setting(tmp_path, tmp_path, image, (0,), 3, "cpu", mirroring=False)
    lines = kernel_times(setting, most=5).splitlines()
    assert len(lines) == 2 + 5
    times = [float(line.split(" | ")[1]) for line in lines[2:]]
    assert times == sorted(times, reverse=True)


def test_stock_gets_the_same_networks(tiny_model_folder, tmp_path):
    folder = tiny_model_folder()
    ours = open_model_folder(folder)
    theirs = open_model_folder(stock.with_stock_trainer(folder, tmp_path / "stock"))
    assert theirs.trainer_name == "nnUNetTrainer"
    assert theirs.plans == ours.plans
    for fold in ours.checkpoints:
        found, expected = theirs.read_weights(fold), ours.read_weights(fold)
        assert found.keys() == expected.keys()
        assert all(bool((found[name] == expected[name]).all()) for name in expected)


# Starts stock nnU-Net with its processes.
@pytest.mark.slow
def test_what_the_passes_of_stock_take_is_known(tiny_model_folder, write_volume, tmp_path):
    folder = tiny_model_folder(patch_zyx=(8, 16, 16))
    theirs = stock.with_stock_trainer(folder, tmp_path / "stock")
    image = write_volume(tmp_path / "image.mha")
    setting = Setting(tmp_path, theirs, image, (0,), 3, "cpu", mirroring=False)
    found = next(one for one in compare_inference.rows(setting) if "sequential" in one.name)
    compare_inference.measure([found], 1, tmp_path, "cpu")
    assert 0 < found.stages[0]["network"] < found.seconds[0]
    assert found.labels.shape == compare_inference.read_image(image).array_zyx.shape
