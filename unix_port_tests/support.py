"""Where things are, for the tests of this folder."""

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
ROOT = HERE + "/.."
VECTORS = ROOT + "/tests/data/vectors.json"
