"""Starts the suite's `wstest` from the folder that it was installed in: wstest.py FOLDER ARGUMENTS... (Python 2.7)."""
import site
import sys

FOLDER = sys.argv.pop(1)
# Namespace packages (zope) are found through .pth files, which PYTHONPATH alone does not read.
sys.path.insert(0, FOLDER)
site.addsitedir(FOLDER)

from autobahntestsuite.wstest import run  # noqa: E402

sys.argv[0] = "wstest"
run()
