"""A tiny network with a card, made-up cases, and the files of one conversion."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from convert.export import export, fold_thresholds
from convert.to_tflite import convert
from glioslice.files import read_json, write_json
from glioslice.model_card import CARD
from training.checkpoint import make_card, write_model
from training.network import NetworkConfig, UNet

WINDOW = (32, 48)
MakeRun = Callable[..., Path]


def random_network(widths: tuple[int, ...], seed: int = 0) -> UNet:
    """A network whose batch norms are not the identity, so that folding them matters."""
    torch.manual_seed(seed)
    network = UNet(NetworkConfig(widths))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def write_run(
    folder: Path, widths: tuple[int, ...] = (4, 6), digests: tuple[str, ...] = ()
) -> Path:
    network = random_network(widths)
    cases = [{"case": str(i), "digest": digest} for i, digest in enumerate(digests)]
    card = make_card(network, "tiny", {"cases": cases, "seed": 0}, [], [])
    card["input"]["window"] = list(WINDOW)
    card["output"]["thresholds"] = {"WT": 0.4, "TC": 0.5, "ET": 0.6}
    write_model(folder, network, card)
    return folder


def set_card(folder: Path, **values: object) -> None:
    write_json(folder / CARD, read_json(folder / CARD) | values)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a model folder of a tiny network with random weights."""

    def make(name: str = "run", **options: object) -> Path:
        return write_run(tmp_path / name, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small cases with masks, each of its own noise and tumour."""
    folder = tmp_path_factory.mktemp("cases")
    for number in range(5):
        rng = np.random.default_rng(number)
        images = np.zeros((4, 28, 40, 16), np.float32)
        images[:, 2:26, 3:37, 2:14] = rng.uniform(100, 900, (4, 24, 34, 12))
        labels = np.zeros(images.shape[1:], np.uint8)
        labels[8 : 16 + number, 9:22, 4:11] = 2
        labels[10:14, 11:19, 6:9] = 4
        labels[11:13, 13:17, 7:8] = 1
        images[:, labels > 0] += 600
        for suffix, volume in zip(
            ("flair", "t1", "t1ce", "t2", "seg"), (*images, labels), strict=True
        ):
            path = folder / f"case_{number}" / f"case_{number}_{suffix}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(volume, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return folder


@pytest.fixture(scope="session")
def samples() -> NDArray[np.float32]:
    """Slices (N, window, 4) that span the clip range once."""
    slices = np.random.default_rng(0).normal(0, 1, (6, *WINDOW, 4)).clip(-5, 5).astype(np.float32)
    slices[0, 0, 0, :2] = -5, 5
    return slices


@pytest.fixture(scope="session")
def exported(samples: NDArray[np.float32]) -> dict[str, bytes]:
    """The unpacked TFLite files of a tiny network, by precision."""
    return export(fold_thresholds(random_network((4, 6)), (0.5, 0.5, 0.5)), WINDOW, samples)


@pytest.fixture(scope="session")
def converted(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder and the folder that it was converted into."""
    folder = tmp_path_factory.mktemp("converted")
    run = write_run(folder / "run")
    convert(run, folder / "out", data=cases)
    return run, folder / "out"
