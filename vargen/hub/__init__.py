"""Models and weights on the Hugging Face Hub, `hf://OWNER/REPO[@REVISION][/PATH]`: read, and written by `push` alone.

What is read becomes a file or a directory of this machine, in the cache of the package huggingface_hub. A command asks
once which commit a branch is (`pin`), and reads all that it reads from that commit.
"""

from vargen.hub.commit import check_token, push
from vargen.hub.fetch import config_file, directory, origin, pin, weights
from vargen.hub.places import FILES, ORIGIN, README, Place, is_hub, named, place, shown

__all__ = [
    "FILES",
    "ORIGIN",
    "README",
    "Place",
    "check_token",
    "config_file",
    "directory",
    "is_hub",
    "named",
    "origin",
    "pin",
    "place",
    "push",
    "shown",
    "weights",
]
