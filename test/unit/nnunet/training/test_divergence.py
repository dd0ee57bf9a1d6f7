"""Steps without a finite gradient: left out one by one, and the end of a training in a row."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gc_panther.errors import ProcessingError
from gc_panther.nnunet.training.divergence import MOST_IN_A_ROW, guard_steps


class Trainer:
    """What nnU-Net's trainer does in a step on a CPU."""

    output_folder = "work/fold_3"
    grad_scaler = None

    def __init__(self, optimizer):
        torch.manual_seed(3)
        self.network = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(self.network.weight, 0.2)
        self.optimizer = optimizer(self.network.parameters(), 0.1)

    def train_step(self, batch):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.network(batch["data"]).sum() * batch.get("factor", 1.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return {"loss": loss.detach().numpy()}

    @property
    def state(self):
        return [
            *(weight.detach().clone() for weight in self.network.parameters()),
            *(
                value.clone()
                for state in self.optimizer.state.values()
                for value in state.values()
                if isinstance(value, torch.Tensor)
            ),
        ]


GOOD = {"data": torch.tensor([[1.0, -2.0]])}
NOT_A_NUMBER = {"data": torch.tensor([[1.0, float("nan")]])}
#: The loss is finite; the clipped gradient is not.
OVERFLOW = {"data": torch.tensor([[1e38, 0.0]]), "factor": 10.0}


def momentum(weights, rate):
    return torch.optim.SGD(weights, rate, momentum=0.9)


@pytest.fixture(params=[torch.optim.AdamW, momentum], ids=["adamw", "sgd"])
def trainer(request):
    trainer = Trainer(request.param)
    guard_steps(trainer, "fold 3")
    trainer.train_step(GOOD)
    return trainer


@pytest.mark.parametrize(("batch", "finite_loss"), [(NOT_A_NUMBER, False), (OVERFLOW, True)])
def test_a_step_without_a_finite_gradient_changes_nothing(trainer, batch, finite_loss, caplog):
    before = trainer.state
    assert np.isfinite(trainer.train_step(batch)["loss"]) == finite_loss
    assert all(torch.equal(one, other) for one, other in zip(before, trainer.state, strict=True))
    assert caplog.messages == ["fold 3: a step is left out, because its gradient is not finite"]
    trainer.train_step(GOOD)
    assert not torch.equal(before[0], trainer.state[0])


def test_without_the_guard_the_weights_are_lost():
    trainer = Trainer(torch.optim.AdamW)
    trainer.train_step(NOT_A_NUMBER)
    assert trainer.network.weight.isnan().all()


def test_a_training_that_diverged_ends_in_one_line(trainer):
    for _ in range(MOST_IN_A_ROW - 1):
        trainer.train_step(NOT_A_NUMBER)
    trainer.train_step(GOOD)
    for _ in range(MOST_IN_A_ROW - 1):
        trainer.train_step(NOT_A_NUMBER)
    with pytest.raises(ProcessingError, match=f"fold 3 diverged: {MOST_IN_A_ROW} steps") as error:
        trainer.train_step(NOT_A_NUMBER)
    assert error.value.where == "work/fold_3"
    assert all(value.isfinite().all() for value in trainer.state)


def test_a_loss_that_is_not_finite_counts_where_a_scaler_takes_the_steps():
    """A gradient scaler does not call the optimizer then, so that no gradient is seen."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    trainer = SimpleNamespace(
        train_step=lambda batch: {"loss": torch.tensor(batch).numpy()},
        optimizer=optimizer,
        grad_scaler=object(),
        output_folder="fold_0",
    )
    guard_steps(trainer, "fold 0")
    with pytest.raises(ProcessingError, match="diverged"):
        for _ in range(MOST_IN_A_ROW):
            trainer.train_step(float("inf"))
