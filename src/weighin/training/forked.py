"""What the process that workers are forked from imports first: an interrupt ends it without a word.

It is started with interrupts held back, and would otherwise tell of one in the middle of an import;
its workers are as mortal as it is, and what is lost with them the first worker makes up for.
"""

import signal

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
