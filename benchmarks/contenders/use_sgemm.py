"""The physical limit: how fast this processor multiplies matrices in float32."""

import numpy as np
from worker import serve

rng = np.random.default_rng(0)
a = rng.random((2048, 2048), np.float32)
b = rng.random((2048, 2048), np.float32)


def multiply():
    """Floating point operations of one product."""
    a @ b
    return 2 * 2048**3


serve({"multiply": multiply})
