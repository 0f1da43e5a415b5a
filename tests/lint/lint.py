"""The lint: the house rules (rules.py) and three tools (clang-format, clang-tidy, cppcheck), each a
check with a name of its own. What clang-tidy found clean is remembered in build/lint-cache.json by
the hash of all that it read, so that only what changed is looked at again. `--quick` bounds the
analyser's search: a fifth of the time, and a mistake that is far from its cause may be missed."""
import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys

import rules

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(ROOT, "build", "lint-cache.json")
DATABASE = os.path.join(ROOT, "build-clang", "compile_commands.json")
JOBS = os.cpu_count() or 1
QUICK_NODES = 50000  # states that the analyser follows in a function; it is 225000 by default
FORMAT_VERSION = 14  # other versions lay out some code differently; this one decides


def output_of(command, **options):
    """(exit code, stdout and stderr) of a command."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", cwd=ROOT, check=False, **options)
    return done.returncode, done.stdout


def c_files():
    return [s.path for s in rules.sources(ROOT) if s.is_c]


def read(path):
    with open(os.path.join(ROOT, path), "rb") as file:
        return file.read()


# --- clang-format --------------------------------------------------------------------------------

def clang_format(options):
    _, version = output_of(["clang-format", "--version"])
    major = int(re.search(r"version (\d+)", version).group(1))
    if major != FORMAT_VERSION:
        print(f"clang-format {major} is here; the layout is checked with {FORMAT_VERSION} only")
        return []
    mode = ["-i"] if options.fix else ["--dry-run", "-Werror"]
    code, text = output_of(["clang-format", "--style=file", *mode, *c_files()])
    found = [re.sub(r"code should be clang-formatted.*", "layout; ./dev lint --fix mends it", line)
             for line in text.splitlines() if ": error: " in line]
    return found or ([text] if code else [])


# --- clang-tidy ----------------------------------------------------------------------------------

def includes(path, seen):
    """The repository's own files that a file reads, itself included."""
    if path not in seen and os.path.exists(os.path.join(ROOT, path)):
        seen.add(path)
        for target in re.findall(rb'^\s*#\s*include\s*"([^"]+)"', read(path), re.M):
            includes(target.decode(), seen)
    return seen


def fingerprint(entry, common):
    """The hash of all that the verdict on one file depends on."""
    digest = hashlib.sha256(common + entry["command"].encode())
    for path in sorted(includes(os.path.relpath(entry["file"], ROOT), set())):
        digest.update(path.encode() + b"\0" + read(path) + b"\0")
    return digest.hexdigest()


def tidy_one(path, quick):
    """What clang-tidy says against a file; the analyser's long path to a finding is left out."""
    bounds = ["-Xclang", "-analyzer-config", "-Xclang", f"max-nodes={QUICK_NODES}"] if quick else []
    code, text = output_of(["clang-tidy", "--quiet", "-p", os.path.dirname(DATABASE),
                            *[f"--extra-arg={word}" for word in bounds], path])
    errors = [line for line in text.splitlines() if re.search(r": (error|fatal error): ", line)]
    errors = errors or text.splitlines()
    return "\n".join(errors).replace(ROOT + "/", "") if code else ""


def compilation_database():
    code, text = output_of(["cmake", "--preset", "clang"])
    if not code: # the headers that are made from the .proto files
        code, text = output_of(["cmake", "--build", os.path.dirname(DATABASE),
                                "--target", "conclave_messages"])
    if code:
        sys.exit(f"lint: preset clang can't be prepared\n{text}")
    with open(DATABASE, encoding="utf-8") as file:
        return [entry for entry in json.load(file) if "/generated/" not in entry["file"]]


def clang_tidy(options):
    _, version = output_of(["clang-tidy", "--version"])
    common = version.encode() + read(".clang-tidy") + read("tests/.clang-tidy")
    common += b"quick" * options.quick
    entries = {fingerprint(e, common): os.path.relpath(e["file"], ROOT)
               for e in compilation_database()}
    clean = set()
    if os.path.exists(CACHE):
        with open(CACHE, encoding="utf-8") as file:
            clean = set(json.load(file)) & entries.keys()
    todo = [key for key in entries if key not in clean]
    found = []
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        verdicts = pool.map(lambda key: tidy_one(entries[key], options.quick), todo)
        for key, text in zip(todo, verdicts):
            if text:
                found.append(text)
            else:
                clean.add(key)
    os.makedirs(os.path.dirname(CACHE), exist_ok=True)
    with open(CACHE, "w", encoding="utf-8") as file:
        json.dump(sorted(clean), file)
    return found


# --- cppcheck ------------------------------------------------------------------------------------

def cppcheck(_options):
    cache = os.path.join(ROOT, "build", "cppcheck")
    os.makedirs(cache, exist_ok=True)
    code, text = output_of(
        ["cppcheck", "--quiet", f"-j{JOBS}", "--std=c11", "--library=posix", "-I.", "-D_GNU_SOURCE",
         '-DCONCLAVE_VERSION="0"', '-DJSON_INTEGER_FORMAT="lld"',
         "--enable=warning,performance,portability", "--error-exitcode=1", "--inline-suppr",
         f"--suppressions-list={os.path.join(ROOT, 'tests/lint/cppcheck.txt')}",
         f"--cppcheck-build-dir={cache}", "--template={file}:{line}: {id}: {message}",
         *[p for p in c_files() if p.endswith(".c")]])
    return [text.strip()] if code else []


# --- scripts -------------------------------------------------------------------------------------

def scripts(_options):
    """Shell and Python scripts parse; what has a #! line can be run."""
    found = []
    for source in rules.sources(ROOT):
        if source.is_shell:
            code, text = output_of(["bash", "-n", source.path])
            found += [text.strip()] if code else []
        elif source.is_python:
            try:
                compile(source.text, source.path, "exec")
            except SyntaxError as error:
                found.append(f"{source.path}:{error.lineno}: {error.msg}")
        if source.text.startswith("#!") and not os.access(os.path.join(ROOT, source.path), os.X_OK):
            found.append(f"{source.path}:1: has a #! line but can't be run: chmod +x")
    return found


TOOLS = {"scripts": scripts, "clang-format": clang_format, "clang-tidy": clang_tidy,
         "cppcheck": cppcheck}


def main():
    parser = argparse.ArgumentParser(prog="./dev lint", description=__doc__)
    parser.add_argument("check", nargs="*", metavar="CHECK",
                        help="only these: " + ", ".join([*rules.RULES, *TOOLS]))
    parser.add_argument("--fix", action="store_true", help="let clang-format mend the layout")
    parser.add_argument("--quick", action="store_true", help="bound the analyser's search")
    parser.add_argument("--list", action="store_true", help="list the checks")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join([*rules.RULES, *TOOLS]))
        return 0
    unknown = set(arguments.check) - set(rules.RULES) - set(TOOLS)
    if unknown:
        parser.error("no check named " + shlex.join(sorted(unknown)))
    failed = 0
    for name in arguments.check or [*rules.RULES, *TOOLS]:
        found = rules.check(ROOT, [name]) if name in rules.RULES else TOOLS[name](arguments)
        failed += bool(found)
        print(f"{'FAILED' if found else 'ok':7}{name}", flush=True)
        for line in found:
            print("  " + line.replace("\n", "\n  "), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
