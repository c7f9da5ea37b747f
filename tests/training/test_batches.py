import time

import numpy as np
import pytest
import torch
from emt_sets import clusters

from mlipkit.errors import DataError
from mlipkit.training.batches import Batch, Feeder, FrameSource, Order


def test_an_epoch_is_a_permutation_and_epochs_differ():
    order = Order(10, seed=3, batch_size=4)
    epochs = [np.concatenate(list(order.batches(epoch))) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    assert [len(batch) for batch in order.batches(0)] == [4, 4, 2]
    assert order.steps_per_epoch == 3


def test_order_depends_on_seed_alone():
    assert Order(10, 3, 4).epoch(5).tolist() == Order(10, 3, 2).epoch(5).tolist()
    assert Order(10, 3, 4).epoch(5).tolist() != Order(10, 4, 4).epoch(5).tolist()


def test_entering_an_epoch_in_the_middle_gives_the_rest_of_it():
    order = Order(11, seed=0, batch_size=2)
    whole = [batch.tolist() for batch in order.batches(4)]
    assert [batch.tolist() for batch in order.batches(4, first=3)] == whole[3:]


@pytest.mark.parametrize("points", [4, 7, 25])
def test_partial_epochs_walk_through_everything_equally(points):
    order = Order(10, seed=1, batch_size=3, points=points)
    seen = np.concatenate([order.epoch(epoch) for epoch in range(10)])
    assert len(order.epoch(3)) == points
    assert (np.bincount(seen, minlength=10) == points).all()


@pytest.mark.parametrize(("n", "steps"), [(12, 3), (13, 3), (14, 4), (15, 4)])
def test_processes_share_each_batch_without_overlap(n, steps):
    order = Order(n, seed=1, batch_size=2, processes=2)
    single = [batch.tolist() for batch in Order(n, seed=1, batch_size=4).batches(0)]
    ranks = [[batch.tolist() for batch in order.batches(0, rank=rank)] for rank in range(2)]
    assert order.steps_per_epoch == len(ranks[0]) == len(ranks[1]) == steps
    for k in range(steps):
        assert ranks[0][k] + ranks[1][k] == single[k]
        assert ranks[0][k]
        assert ranks[1][k]


def test_fewer_frames_than_processes_is_an_error():
    with pytest.raises(DataError, match="fewer training frames"):
        Order(1, 0, 4, processes=2)


class Slow:
    def __init__(self, seconds, fails_at=None):
        self.seconds, self.fails_at = seconds, fails_at
        self.source = FrameSource(clusters(4, seed=0), 4.0, torch.float32)

    def batch(self, indices) -> Batch:
        time.sleep(self.seconds)
        if self.fails_at in indices:
            raise DataError("broken frame", found=self.fails_at)
        return self.source.batch(indices)


def test_batches_come_in_order_and_waiting_is_counted():
    feeder = Feeder(Slow(0.02), torch.device("cpu"))
    chosen = [np.array([i]) for i in (2, 0, 3)]
    found = [(indices.tolist(), batch.graph.n_systems) for indices, batch in feeder(iter(chosen))]
    assert found == [([2], 1), ([0], 1), ([3], 1)]
    assert 0.04 < feeder.waited_s < 0.5
    feeder.close()


def test_no_waiting_when_computing_takes_longer_than_preparing():
    feeder = Feeder(Slow(0.0), torch.device("cpu"))
    list(feeder(iter([np.array([0])])))
    before = feeder.waited_s
    for number, _ in enumerate(feeder(iter([np.array([i]) for i in range(4)]))):
        if number == 0:
            before = feeder.waited_s
        time.sleep(0.05)
    assert feeder.waited_s - before < 0.05
    feeder.close()


def test_an_error_in_the_thread_is_raised_where_the_batch_is_wanted():
    feeder = Feeder(Slow(0.0, fails_at=1), torch.device("cpu"))
    with pytest.raises(DataError, match="broken frame"):
        list(feeder(iter([np.array([0]), np.array([1])])))
    feeder.close()
