"""The packages of npm/package-lock.json and the programs beside it, in build/npm, for tests that
run clients in node. Several tests may ask at once: the first one installs, the others wait."""
import fcntl
import glob
import os
import shutil
import subprocess

from cluster import DIE_WITH_PARENT, expect

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE = os.path.join(ROOT, "tests", "lib", "npm")
NPM = os.path.join(ROOT, "build", "npm")
NPM_S = 180


def copy():
    for path in glob.glob(os.path.join(SOURCE, "*.js*")):
        name = os.path.basename(path)
        shutil.copy(path, os.path.join(NPM, name + ".new"))
        os.rename(os.path.join(NPM, name + ".new"), os.path.join(NPM, name))


def install():
    """What kept the packages away, such as a machine without the network; "": nothing."""
    os.makedirs(NPM, exist_ok=True)
    with open(os.path.join(NPM, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return install_locked()


def install_locked():
    stamp = os.path.join(NPM, "installed")
    with open(os.path.join(SOURCE, "package-lock.json")) as file:
        wanted = file.read()
    copy()
    if os.path.exists(stamp) and open(stamp).read() == wanted:
        return ""
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=NPM,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=NPM_S, check=False)
    if done.returncode != 0:
        return f"npm ci: {' '.join(done.stdout.split())[:200]}"
    with open(stamp, "w") as file:
        file.write(wanted)
    return ""


def show_program(test, name, program, *arguments, seconds):
    """Runs one of the programs in node; each `ok NAME` or `not ok NAME: why` is a thing shown."""
    done = subprocess.run([*DIE_WITH_PARENT, "node", program, *arguments], cwd=NPM,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=seconds, check=False, stdin=subprocess.DEVNULL,
                          env=dict(os.environ, NODE_NO_WARNINGS="1"))
    for line in done.stdout.splitlines():
        if line.startswith("ok ") or line.startswith("not ok "):
            with test.show(f"npm dockerode: {line.split('ok ', 1)[1].split(':')[0]}"):
                expect(line.startswith("ok "), line)
    with test.show(f"{name}: to its end"):
        expect(done.returncode == 0, done.stdout[-2000:])
