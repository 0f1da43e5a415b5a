"""The hunt for a value in places where it must not be: files, raw images of file systems, argument
lists and environments, the memory of processes (told apart by what the kernel says of each region:
locked and left out of core dumps, or not), cores. A value is random, so whatever looks like it is
it; it is looked for as it is, as bytes of the hex that it is, and as base64 at each alignment, by
halves, so that what is cut in two is found as well. Every hunt has a control: it must find what a
test has put there."""
import base64
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess

from cluster import Failure, expect, wait_until

TOKEN_BYTES = 32
CHUNK = 8 << 20
OVERLAP = 256           # longer than any needle
MEMORY_MAX = 2 << 30    # of a process; more is a mistake
UNREADABLE = ("[vvar]", "[vsyscall]", "[vvar_vclock]")
CORE_S = 60


def base64_parts(piece):
    """What any base64 of bytes that hold `piece` holds, whatever is before and behind it."""
    found = []
    for before in range(3):
        text = base64.b64encode(b"\0" * before + piece)
        # The first and last characters also depend on the neighbours.
        found.append(text[(before * 8 + 5) // 6:len(text) // 4 * 4 - 4])
    return found


class Value:
    """A secret value of a test and all that it is recognised by. A large one is the same token
    again and again, so that no part of it can hide. `plain`: not as binary or in capitals."""

    def __init__(self, name="value", size=0, plain=False):
        raw = secrets.token_bytes(TOKEN_BYTES)
        token = raw.hex().encode()
        self.name = name
        self.bytes = (token + b"\n") * (size // (len(token) + 1)) if size else token
        self.needles = {}
        for half, part in (("first", 0), ("second", 1)):
            text = token[part * TOKEN_BYTES:][:TOKEN_BYTES]
            self.needles[f"{half} half"] = text
            for at, piece in enumerate(base64_parts(text)):
                self.needles[f"{half} half, base64 at {at}"] = piece
            if plain:
                continue
            self.needles[f"{half} half, binary"] = raw[part * 16:][:16]
            self.needles[f"{half} half, capitals"] = text.upper()
            for at, piece in enumerate(base64_parts(raw[part * 16:][:16])):
                self.needles[f"{half} half, binary in base64 at {at}"] = piece

    def found_in(self, data):
        """The forms in which it is there."""
        return [form for form, needle in self.needles.items() if needle in data]


def nowhere(hits, place):
    expect(not hits, f"found in {place}: " + "; ".join(sorted(set(map(str, hits)))[:6]))


# --- files and images ----------------------------------------------------------------------------

def in_stream(file, values):
    """[(value, form)] in a file that may be large."""
    hits, tail = set(), b""
    while True:
        data = file.read(CHUNK)
        if not data:
            return sorted(hits)
        for value in values:
            hits.update((value.name, form) for form in value.found_in(tail + data))
        tail = (tail + data)[-OVERLAP:]


def in_file(path, values):
    with open(path, "rb", buffering=0) as file:
        return [f"{name} ({form}) in {path}" for name, form in in_stream(file, values)]


def in_files(folders, values):
    """In all files below, in their names, in symbolic links and extended attributes."""
    hits, count = [], 0
    for folder in folders:
        for where, dirs, names in os.walk(folder):
            for name in dirs + names:
                path = os.path.join(where, name)
                for value in values:
                    hits += [f"{value.name} in the name {path}" for _ in
                             value.found_in(os.fsencode(name))]
                with contextlib.suppress(FileNotFoundError):
                    if os.path.islink(path):
                        data = os.fsencode(os.readlink(path))
                        hits += [f"{v.name} in the link {path}" for v in values
                                 if v.found_in(data)]
                    elif os.path.isfile(path):
                        hits += in_file(path, values)
                        count += 1
                    for attribute in os.listxattr(path, follow_symlinks=False):
                        data = os.getxattr(path, attribute, follow_symlinks=False)
                        hits += [f"{v.name} in {attribute} of {path}" for v in values
                                 if v.found_in(data)]
    expect(count > 0, f"there is no file in {folders}")
    return hits


def remove_stale():
    """Unmounts what killed tests have left mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            path = line.split()[4]
            owner = re.search(r"/e2e-[^/]*/disk-(\d+)$", path)
            if owner and not os.path.exists(f"/proc/{owner[1]}"):
                subprocess.run(["umount", "-l", path], check=False)


class Image:
    """A file system of its own in a file, on a loop device: what was ever written into it, and was
    removed since, is still in the file. Needs root."""

    def __init__(self, test, mib=512):
        self.path = os.path.join(test.work, "image")
        self.root = os.path.join(test.work, f"disk-{os.getpid()}")
        remove_stale()
        with open(self.path, "wb") as file:
            file.truncate(mib << 20)
        os.mkdir(self.root)
        for command in (["mkfs.ext4", "-q", "-O", "^has_journal", self.path],
                        ["mount", "-o", "loop,nodiscard", self.path, self.root]):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False)
            if done.returncode != 0:
                raise OSError(f"{command[0]}: {done.stdout.strip()}")
        test.undo.append(self.unmount)

    def unmount(self):
        subprocess.run(["umount", "-l", self.root], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)

    def hunt(self, values):
        """In all blocks that have ever been written; holes of the file are passed over."""
        subprocess.run(["sync", "-f", self.root], check=True)
        hits, tail, at = set(), b"", 0
        with open(self.path, "rb", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            while at < end:
                try:
                    start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                stop = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                tail = tail if start == at else b""
                os.lseek(file.fileno(), start, os.SEEK_SET)
                data = file.read(min(CHUNK, stop - start))
                for value in values:
                    hits.update((value.name, form) for form in value.found_in(tail + data))
                tail, at = (tail + data)[-OVERLAP:], start + len(data)
        return [f"{name} ({form}) in the raw image" for name, form in sorted(hits)]


# --- processes -----------------------------------------------------------------------------------

def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def in_words(values, but=()):
    """In the arguments and environments of all processes of this machine."""
    hits = []
    for pid in pids():
        for name in ("cmdline", "environ", "comm"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
                data = file.read()
                hits += [f"{v.name} ({form}) in {name} of {pid}" for v in values if pid not in but
                         for form in v.found_in(data)]
    return hits


class Region:
    """A piece of a process's memory."""

    def __init__(self, line):
        words = line.split()
        self.start, self.end = (int(word, 16) for word in words[0].split("-"))
        self.name = words[5] if len(words) > 5 else "memory"
        self.flags, self.there_kib = set(), 0  # pages that it has, in memory or swapped out

    @property
    def locked(self):
        return "lo" in self.flags

    @property
    def dumped(self):
        return "dd" not in self.flags

    def __str__(self):
        return f"{self.name} at {self.start:x}+{self.end - self.start:x}" + \
            (" locked" if self.locked else "") + ("" if self.dumped else " not dumped")


def regions(pid):
    found = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("VmFlags:"):
                found[-1].flags = set(line.split()[1:])
            elif line.startswith(("Rss:", "Swap:")):
                found[-1].there_kib += int(line.split()[1])
            elif "-" in line.split()[0] and not line.split()[0].endswith(":"):
                found.append(Region(line))
    return found


def snapshot(pid):
    """[(region, bytes)] of all that can be read of a process, which stands still meanwhile: as
    shortly as can be, since others wait for its heartbeats."""
    found = []
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    os.kill(pid, signal.SIGSTOP)
    try:
        there = [r for r in regions(pid) if r.there_kib and r.name not in UNREADABLE]
        size = sum(r.end - r.start for r in there)
        expect(size < MEMORY_MAX, f"{pid} has {size} bytes: is it of a sanitizer?")
        for region in there:
            at, parts = region.start, []
            with contextlib.suppress(OSError):  # a guard page ends it
                while at < region.end:
                    parts.append(os.pread(memory, min(CHUNK, region.end - at), at))
                    at += len(parts[-1])
            found.append((region, b"".join(parts)))
    finally:
        os.kill(pid, signal.SIGCONT)
        os.close(memory)
    size = sum(len(data) for _, data in found)
    expect(size > 100_000, f"the memory of {pid} can't be read: {size} bytes")
    return found


def in_memory(pid, values):
    """[(value's name, form, region)] in the memory of a process."""
    hits = []
    for region, data in snapshot(pid):
        if data.strip(b"\0"):
            hits += [(v.name, form, region) for v in values for form in v.found_in(data)]
    return hits


def open_hits(hits):
    """Those that could be swapped out or be in a core, as texts."""
    return [f"{name} ({form}) in {region}" for name, form, region in hits
            if not region.locked or region.dumped]


def forgotten(pid, values, what, seconds=10):
    """Until there is nothing of the values in a process."""
    def gone():
        hits = in_memory(pid, values)
        nowhere([f"{n} ({f}) in {r}" for n, f, r in hits], what)
        return True
    wait_until(gone, f"{what} to forget", seconds, 0.2)


# --- cores ---------------------------------------------------------------------------------------

def core_of(pid, folder):
    """The path of a core of a running process, as a debugger makes it: with what the kernel would
    put into one, whatever the process has said against cores. "": there is no debugger."""
    if not shutil.which("gcore"):
        return ""
    done = subprocess.run(["gcore", "-o", os.path.join(folder, "core"), str(pid)], check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, timeout=CORE_S, errors="replace")
    path = os.path.join(folder, f"core.{pid}")
    if not os.path.exists(path):
        raise Failure(f"gcore of {pid}: {done.stdout.strip()[-300:]}")
    return path


def abort(manager, folders, seconds=20):
    """Ends a server by SIGABRT, with cores allowed to it from outside where that is possible; the
    core files that are there afterwards."""
    subprocess.run(["prlimit", "--core=unlimited:unlimited", "--pid", str(manager.process.pid)],
                   stderr=subprocess.DEVNULL, check=False)
    before = {p for p, _ in cores(folders)}
    os.kill(manager.process.pid, signal.SIGABRT)
    expect(manager.ended(seconds) == -signal.SIGABRT, f"{manager.name} did not abort")
    return [p for p, _ in cores(folders) if p not in before]


def cores(folders):
    """(path, size) of what looks like a core."""
    for folder in folders:
        for where, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(where, name)
                with contextlib.suppress(OSError), open(path, "rb") as file:
                    head = file.read(18)
                    if head[:4] == b"\x7fELF" and head[16:18] == b"\x04\0":
                        yield path, os.path.getsize(path)
