"""Bad input of every kind, as commands, with what the line about it must name. A kind of fault has many rows here."""

from __future__ import annotations

from config_rows import CONFIGS
from data_rows import DATA
from file_rows import FILES
from flag_rows import FLAGS
from hub_rows import HUB
from interop_rows import INTEROP
from other_rows import OTHERS
from ranges import RANGES
from right_rows import RIGHT
from workdir_rows import WORKDIRS

KINDS = dict(
    flags=FLAGS,
    configs=CONFIGS,
    ranges=RANGES,
    files=FILES,
    data=DATA,
    workdirs=WORKDIRS,
    interop=INTEROP,
    hub=HUB,
    others=OTHERS,
    right=RIGHT,
)
