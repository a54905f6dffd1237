"""A machine that denies io_uring, as many containers do: a seccomp filter for one program."""

import ctypes
import os
import platform

from flow import LIBC, Skip, die_with_us

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
# The exit status of a program that could not be denied it.
NOT_PERMITTED = 77


# io_uring_setup fails with EPERM, all else is allowed.
class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]


def deny_io_uring():
    """In a child, before it becomes a program."""
    load, jump_equal, ret = 0x20, 0x15, 0x06
    io_uring_setup = 425
    code = (Instruction * 4)((load, 0, 0, 0), (jump_equal, 0, 1, io_uring_setup), (ret, 0, 0, 0x00050001),
                             (ret, 0, 0, 0x7fff0000))
    program = Program(4, code)
    die_with_us()
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 \
            or LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        os._exit(NOT_PERMITTED)


def need_filter():
    if platform.machine() != "x86_64":
        raise Skip("the filter is written for x86-64")


def check_permitted(process):
    if process.poll() == NOT_PERMITTED:
        raise Skip("seccomp filters are not permitted")
