import pytest
import torch

from oasis_core.training.optimizer import Muon, orthogonalized

SHAPES = ((48, 432), (432, 48), (64, 64))


def matrices(shape, count=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *shape, generator=generator)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    values = matrices(shape)
    made = orthogonalized(values)
    assert made.shape == values.shape
    singular = torch.linalg.svdvals(made)
    assert 0.6 < singular.min() < singular.max() < 1.3
    u, _, v = torch.linalg.svd(values, full_matrices=False)
    inner = u.mT @ made @ v.mT
    assert torch.allclose(inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)), atol=1e-3)


def test_a_matrix_of_zeros_stays_finite():
    assert orthogonalized(torch.zeros(1, 4, 6)).eq(0).all()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 brought a Muon to compare")
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_torch(shape):
    ours = [torch.nn.Parameter(x) for x in matrices(shape)]
    theirs = [torch.nn.Parameter(x.clone()) for x in matrices(shape)]
    muon = Muon([{"params": ours, "lr": 0.01}])
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(shape, generator=generator)
            other.grad = mine.grad.clone()
        muon.step()
        reference.step()
    for mine, other, start in zip(ours, theirs, matrices(shape), strict=True):
        # Torch's iteration runs in bfloat16.
        assert (mine - other).norm() < 0.08 * (mine - start).norm()


def test_a_matrix_without_gradient_stays():
    used, unused = (torch.nn.Parameter(x) for x in matrices((4, 6), 2))
    used.grad = torch.ones(4, 6)
    before = unused.detach().clone()
    Muon([{"params": [used, unused], "lr": 0.1}]).step()
    assert torch.equal(unused, before)
    assert not torch.equal(used.detach(), matrices((4, 6), 2)[0])
