"""The stories of many nodes run with ``make test-long`` only, for now: two of them are not steady yet on two busy cores."""

import os

collect_ignore_glob = [] if "PSUBD_LONG" in os.environ else ["test_*.py"]
