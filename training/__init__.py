"""The network, its data and its training: what happens before a file exists."""

import sys
from types import ModuleType

# MONAI imports TensorBoard's writer, and that imports TensorFlow where it is installed: a gigabyte
# and half a minute for nothing. A module of this name is TensorBoard's own switch to do without.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
