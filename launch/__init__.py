"""Programs: parse flags, start the cluster, call the library."""

import gc
import sys

# What is imported stays: to look through it for garbage took a seventh of the time of all imports.
# So it is where a program starts as `python -m launch.NAME`; its main turns it on again.
if sys.argv[0] == "-m":
    gc.disable()
