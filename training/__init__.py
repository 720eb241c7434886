"""The network, its data and its training."""

import sys
from types import ModuleType

# MONAI imports TensorBoard's writer, which imports TensorFlow where it is installed: a gigabyte and
# half a minute for nothing. A module of this name is TensorBoard's own switch to do without it.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
