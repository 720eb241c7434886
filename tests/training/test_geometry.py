"""Images and labels are transformed together, within the limits."""

import pytest
import torch

from training import geometry as module
from training.geometry import warp

MIDDLE = torch.tensor([[79.5, 95.5]])


def warped(
    seed: int, count: int = 1, *, outside: int = 0, zoom: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of a slice whose first modality is its label."""
    labels = torch.zeros(count, 160, 192, dtype=torch.uint8)
    labels[:, 60:100, 70:120] = 2
    labels[:, 70:90, 80:110] = 3
    images = torch.full((count, 4, 160, 192), 0.01)
    images[:, 0] += labels
    generator = torch.Generator().manual_seed(seed)
    centres = MIDDLE.expand(count, 2)
    return warp(images, labels, centres, (128, 128), generator, zoom=zoom, outside=outside)


@pytest.fixture
def no_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_ROTATION", "MAX_LOG_SCALE", "MAX_ELASTIC"):
        monkeypatch.setattr(module, name, 0.0)


def test_labels_move_with_the_images() -> None:
    images, labels = warped(0, 16)
    assert images.shape == (16, 4, 128, 128)
    assert set(labels.unique().tolist()) == {0, 2, 3}
    apart = (images[:, 0] - labels).abs() > 1.0
    assert apart.float().mean() < 0.002  # only along borders, where images are interpolated


@pytest.mark.usefixtures("no_motion")
def test_without_motion_a_crop_is_exact_or_mirrored() -> None:
    for seed in range(4):
        images, labels = warped(seed)
        rows = torch.arange(16, 144)
        expected = torch.zeros(160, 192, dtype=torch.uint8)
        expected[60:100, 70:120] = 2
        expected[70:90, 80:110] = 3
        # Only left and right may be mirrored.
        either = [expected[order][:, 32:160] for order in (rows, rows.flip(0))]
        assert any(torch.equal(labels[0], crop) for crop in either)
        torch.testing.assert_close(images[0, 0], labels[0] + 0.01, atol=1e-3, rtol=0)


@pytest.mark.usefixtures("no_motion")
def test_zoom_is_pixels_per_voxel() -> None:
    _, labels = warped(0, zoom=2.0)
    assert int((labels == 3).sum()) == 4 * 20 * 30


def test_labels_beyond_the_image() -> None:
    for outside in (0, 255):
        images, labels = warped(1, 8, zoom=0.5, outside=outside)
        beyond = images.eq(0).all(dim=1)
        assert beyond.float().mean() > 0.3
        assert (labels[beyond] == outside).float().mean() > 0.97  # except along the border


def test_each_crop_is_transformed_independently_and_reproducibly() -> None:
    (first, _), (again, _), (other, _) = warped(3, 4), warped(3, 4), warped(4, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
