"""`python -m helm …`: run Helm, built first if need be."""

from __future__ import annotations

import os
import sys

from provision.progress import for_stream

from helm import find

path = find(for_stream())
os.execv(path, ["helm", *sys.argv[1:]])
