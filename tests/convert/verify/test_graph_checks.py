import pytest
from torch import nn

from convert.verify.graph_checks import check_layers, check_ops
from glioslice.errors import GliosliceError
from tests.convert.conftest import WINDOW, random_network
from tests.convert.float_files import FloatFile, of_unet


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        (nn.PReLU(), "use ReLU"),
        (nn.InstanceNorm2d(4), "use BatchNorm"),
        (nn.Hardswish(), "use ReLU"),
        (nn.ConvTranspose2d(4, 4, 2, groups=2), "nearest upsampling"),
        (nn.Conv2d(4, 8, 3, groups=4), "plain convolution"),
    ],
)
def test_an_unsupported_layer_is_named_with_its_path_and_an_alternative(
    module: nn.Module, instead: str
) -> None:
    network = random_network((4, 6))
    network.encoder[1][0][2] = module  # type: ignore[index]
    kind = type(module).__name__
    with pytest.raises(GliosliceError, match=rf"encoder\.1\.0\.2 \({kind}\).*{instead}"):
        check_layers(network)


def test_layers_of_glioslice_pass() -> None:
    check_layers(random_network((4, 6)))
    check_layers(nn.Sequential(nn.ConvTranspose2d(4, 4, 2), nn.Conv2d(4, 4, 3), nn.Conv2d(1, 1, 1)))


def test_a_foreign_op_is_named_with_the_layer_before_it() -> None:
    made = FloatFile((*WINDOW, 4))
    x = made.conv(made.input, [[[[1.0, 0, 0, 0]]]] * 2, [0, 0], relu=False)
    content = made.file(made.prelu(x, [0.1, 0.1]))
    with pytest.raises(GliosliceError, match=r"PRELU after encoder\.1\.0"):
        check_ops(content, {x: "encoder.1.0"})
    check_ops(of_unet(random_network((4, 6)), WINDOW), {})
