"""``twistd``, for a daemon whose data port serves hot routes by Klein's tree as all others."""

import sys
from functools import partial

from twisted.scripts.twistd import run

import psubd.daemon
from psubd.wire.site import Site

if __name__ == "__main__":
    psubd.daemon.Site = partial(Site, hot=False)  # type: ignore[assignment, misc]
    sys.argv[0] = "twistd"
    run()
