"""Property tests on a shared machine: no deadline; a failure prints how to repeat it."""

from hypothesis import settings

settings.register_profile("wire", deadline=None, print_blob=True)
settings.load_profile("wire")
