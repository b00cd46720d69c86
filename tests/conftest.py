"""For every test: caches of their own, and one thread, since tests run side by side."""

import atexit
import os
import shutil
import tempfile

# Before anything reads it: the tests' caches must not pile up in a contributor's home.
folder = tempfile.mkdtemp(prefix="stdc_adaptation_tests_")
os.environ["XDG_CACHE_HOME"] = folder
atexit.register(shutil.rmtree, folder, ignore_errors=True)

# Networks of this size gain nothing from more; subprocesses inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
