"""FlexVAR's names."""

import numpy as np
from golden import FOLDER

from vargen.interop import flexvar, mapping, systems
from vargen.interop.parity.golden import Golden, stand_in


def test_names_both_ways():
    """The arrays come back as they were; the mask of training's last set of levels may have any size."""
    golden = Golden(FOLDER / "flexvar.npz")
    arrays = {k.removeprefix("var."): v for k, v in golden.weights.items() if k.startswith("var.")}
    c = stand_in(4, name="pyramid_vq", level_weight=0.0, levels=(1, 2, 4), vocab=40, channels=6)
    flexvar.fill(c, arrays)
    c.order = dict(name="levels")
    generator = systems.build(c)[1]
    again = mapping.write(flexvar.table(generator), systems.read(flexvar, generator, arrays))
    assert again.keys() == arrays.keys()
    assert again.pop("attn_bias_for_masking").shape == (1, 1, 680, 680)
    for name, array in again.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True, err_msg=name)
