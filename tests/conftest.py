"""What holds for the whole suite."""

from __future__ import annotations

import os
import signal

# A shell starts what runs in the background with SIGINT ignored; Ctrl-C is tested there all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A run records itself in the repository it works in; this one's is no test's.
os.environ["VERIFIER_HISTORY"] = "off"
