"""Memory in huge pages, for programs that train on a CPU."""

import os
import sys

_ASKED = "glibc.malloc.hugetlb"


def huge_pages() -> None:
    """Starts this program once more, with malloc asking for huge pages.

    XLA on a CPU takes memory from malloc and gives it back while it computes, and Linux hands it
    out anew in pages of 4 KiB. glibc 2.35 and later ask for huge ones if they are told so when a
    process begins (150 steps of the convolutional preset on MNIST, whole processes on two cores:
    10.5 s for 15.8, page faults .2 million for 6; in-memory steps of the dense preset: the same).
    GLIBC_TUNABLES=glibc.malloc.hugetlb=0 in the environment is left as it is.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    glibc = "CS_GNU_LIBC_VERSION" in os.confstr_names and os.confstr("CS_GNU_LIBC_VERSION")
    if _ASKED in given or not glibc or not glibc.startswith("glibc") or not sys.executable:
        return
    os.environ["GLIBC_TUNABLES"] = f"{given}:{_ASKED}=1".strip(":")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
