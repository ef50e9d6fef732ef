"""Memory in huge pages, for programs that train on a CPU."""

import contextlib
import os
import sys

_ASKED, _STARTED = "glibc.malloc.hugetlb", "AEJAX_HUGE_PAGES"


def huge_pages() -> None:
    """Starts this program once more, with malloc asking for huge pages.

    XLA on a CPU takes memory from malloc and gives it back while it computes, and Linux hands it
    out anew in pages of 4 KiB. glibc 2.35 and later ask for huge ones if they are told so when a
    process begins. GLIBC_TUNABLES=glibc.malloc.hugetlb=0 in the environment is left as it is: with
    it `python -m launch.train --config=convolutional --config.data.source=idx:MNIST
    --config.duration="150 steps"` takes 15.8 s on two cores and 6 million page faults, without it
    10.5 s and 0.2 million; the preset dense takes as long either way.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if _ASKED in given or _STARTED in os.environ or not sys.executable or not _glibc():
        return
    os.environ["GLIBC_TUNABLES"] = f"{given}:{_ASKED}=1".strip(":")
    os.environ[_STARTED] = "1"  # the other may be taken out on the way
    with contextlib.suppress(OSError):  # small pages will do
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _glibc() -> bool:
    try:
        return sys.platform == "linux" and bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False
