"""Designs that a card may name, and that conversion must refuse."""

from torch import nn

from training.network import NetworkConfig, UNet


class WithPReLU(UNet):
    """The kit's network with PReLU put back into one layer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.encoder[1][0][2] = nn.PReLU(config.widths[1])  # type: ignore[index]
