import os
import tempfile

# Before anything reads it: caches of tests must not pile up in a contributor's home.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="stdc_adaptation_tests_")
