"""`python leash.py PID COMMAND ...`: becomes the command, which dies with the process PID that starts it (Linux).

In a program of its own: in a process with gRPC clients no Python may run between fork and exec, gRPC aborts there.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(sys.argv[1]):  # it died in between
            sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])
