#!/usr/bin/python3
"""Runs a command under the SystemCallFilter= lines of a systemd unit, where systemd itself does not run.

    filter.py UNIT COMMAND...

The lines are merged as systemd.exec(5) says: an allow list that `~` lines take from and later lines add to. Groups are
expanded by `systemd-analyze syscall-filter`. Needs python3-seccomp and systemd.
"""
import errno
import os
import subprocess
import sys

import seccomp

# What systemd allows beside any allow list: @default, and what starting and ending the program takes.
ALWAYS = {"@default", "execve", "exit", "exit_group", "getrlimit", "rt_sigreturn", "sigreturn"}


def expand(names):
    """System calls of some names and groups."""
    calls = set()
    for name in names:
        if not name.startswith("@"):
            calls.add(name)
            continue
        listed = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True)
        lines = [line.strip() for line in listed.stdout.splitlines()[1:]]
        calls |= expand(line for line in lines if line and not line.startswith("#"))
    return calls


def read(unit):
    """The allowed calls and the error number of the others."""
    allowed, number = None, None
    for line in open(unit, encoding="utf-8"):
        key, _, value = line.strip().partition("=")
        if key == "SystemCallErrorNumber":
            number = getattr(errno, value)
        if key != "SystemCallFilter":
            continue
        calls = expand(value.removeprefix("~").split())
        if value.startswith("~"):
            allowed -= calls
        else:
            allowed = (allowed or expand(ALWAYS)) | calls
    if allowed is None:
        sys.exit(f"{unit} has no SystemCallFilter")
    return allowed, number


def main():
    allowed, number = read(sys.argv[1])
    refused = seccomp.KILL if number is None else seccomp.ERRNO(number)
    program = seccomp.SyscallFilter(defaction=refused)
    for call in sorted(allowed):
        try:
            program.add_rule(seccomp.ALLOW, call)
        except (RuntimeError, ValueError, OSError):
            # Not on this machine's architecture.
            pass
    program.load()
    os.execvp(sys.argv[2], sys.argv[2:])


main()
