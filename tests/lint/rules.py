"""The house rules that no ready-made tool knows: which layer may include which, banned calls,
sizes, opening paragraphs, sleeps in tests. A rule takes a source file and yields (line, message);
it sees C with comments, strings and preprocessor lines blanked, so that it judges code only."""
import os
import re

LAYERS = ("crypto", "raft", "store", "api")  # each may include itself and those before it
OUTSIDE = ("bench", "tests", "examples")     # may include every layer and themselves
PUBLIC_HEADER = "api/conclave.h"             # stands alone and may be as long as it needs
WAIT_MARK = "wait-until:"                    # see sleeps()

NOT_OURS = re.compile(r"\.git$|build($|-)|node_modules$|conclave-data$|__pycache__$")

LINE_MAX = 100
FUNCTION_LINES_MAX = 70
SOURCE_LINES_MAX = 800
HEADER_LINES_MAX = 200
OPENING_CHARS_MIN = 40

BANNED = {
    "strcpy": "unbounded: use buf or snprintf", "strncpy": "may leave no NUL: use snprintf",
    "strcat": "unbounded: use buf", "strncat": "easily miscounted: use buf",
    "stpcpy": "unbounded: use buf", "sprintf": "unbounded: use snprintf",
    "vsprintf": "unbounded: use vsnprintf", "gets": "unbounded",
    "strtok": "hidden state: use a cursor", "atoi": "no errors: use strtol and check",
    "atol": "no errors: use strtol and check", "atoll": "no errors: use strtoll and check",
    "atof": "no errors: use strtod and check", "alloca": "no bound on the stack",
    "bzero": "sodium_memzero wipes, memset clears", "tmpnam": "races: use mkstemp",
    "mktemp": "races: use mkstemp", "rand": "use randombytes or a seeded generator",
    "srand": "use randombytes or a seeded generator", "system": "use posix_spawn without a shell",
    "localtime": "hidden state: use localtime_r", "gmtime": "hidden state: use gmtime_r",
}
SECRET_NAME = r"\w*(?:secret|passw|passphrase|privat|key|kek|dek|token|seed)\w*"
SLEEP_C = r"\b(?:sleep|usleep|nanosleep|clock_nanosleep|uv_sleep|thrd_sleep)\s*\("


class Source:
    """One file: its path inside the repository, its text, and its text with only code left."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.lines = text.split("\n")
        self.folder = path.split("/")[0] if "/" in path else ""
        self.is_c = path.endswith((".c", ".h"))
        self.is_python = path.endswith(".py") or bool(re.match(r"#!.*\bpython3\n", text))
        self.is_shell = path.endswith(".sh") or bool(re.match(r"#!.*\b(ba)?sh\n", text))
        self.code = blank_c(text) if self.is_c else text


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def blank_c(text):
    """Comments, literals and preprocessor lines become spaces; every newline stays in its place."""
    token = re.compile(
        r"/\*.*?\*/|//[^\n]*"                          # comments
        r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"  # strings and characters
        r"|^[ \t]*#(?:\\\n|/\*.*?\*/|[^\n])*", re.S | re.M)
    return token.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def layers(source):
    """Dependencies point one way, and every include names its folder."""
    if not source.is_c:
        return
    for number, line in enumerate(source.lines, 1):
        match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        if not match:
            continue
        target = match.group(1)
        layer = target.split("/")[0]
        if source.path == PUBLIC_HEADER:
            yield number, f"the public header includes {target}: it has to stand alone"
        elif "/" not in target or layer not in LAYERS + OUTSIDE or ".." in target:
            yield number, f'"{target}": include by the path from the top, e.g. "crypto/base.h"'
        elif source.folder in LAYERS:
            allowed = LAYERS[:LAYERS.index(source.folder) + 1]
            if layer not in allowed:
                yield number, f"{source.folder}/ includes {target}: it may only use " + \
                    ", ".join(allowed)


def calls(source):
    """Banned calls, and memset where something secret is meant to disappear."""
    if not source.is_c:
        return
    for match in re.finditer(r"(?<![\w.>])(\w+)\s*\(", source.code):
        if match.group(1) in BANNED:
            name = match.group(1)
            yield line_of(source.code, match.start()), f"{name}() is banned: {BANNED[name]}"
    for match in re.finditer(rf"\bmemset\s*\(\s*&?(?:\w+(?:->|\.))*{SECRET_NAME}\s*,\s*0",
                             source.code, re.I):
        yield line_of(source.code, match.start()), "memset() may be optimised away: sodium_memzero"


def functions(code):
    """(first line, name, lines) of every function body: a block at the top that follows a `)`."""
    depth = 0
    start = None
    for match in re.finditer(r"[{}]", code):
        if match.group(0) == "{":
            before = code[:match.start()].rstrip()
            if re.search(r"\bextern$", before):
                continue  # extern "C" {: what it holds is still at the top
            if depth == 0 and before.endswith(")"):
                head = before[max(before.rfind(";"), before.rfind("}")) + 1:]
                name = re.search(r"(\w+)\s*\(", head)
                start = (match.start(), name.group(1) if name else "?")
            depth += 1
        else:
            depth = max(0, depth - 1)  # the end of an extern "C" had no beginning
            if depth == 0 and start:
                first, last = line_of(code, start[0]), line_of(code, match.start())
                yield first, start[1], last - first + 1
                start = None


def sizes(source):
    """Long functions and long files are two ideas."""
    if not source.is_c:
        return
    for first, name, count in functions(source.code):
        if count > FUNCTION_LINES_MAX:
            yield first, f"{name}() has {count} lines; the limit is {FUNCTION_LINES_MAX}"
    count = len(source.text.splitlines())
    if source.path.endswith(".h") and source.path != PUBLIC_HEADER and count > HEADER_LINES_MAX:
        yield count, f"{count} lines; the limit of a header is {HEADER_LINES_MAX}"
    if source.path.endswith(".c") and count > SOURCE_LINES_MAX:
        yield count, f"{count} lines; the limit of a source file is {SOURCE_LINES_MAX}"


def openings(source):
    """A file opens with a paragraph that tells its idea."""
    text = re.sub(r"\A#![^\n]*\n", "", source.text)
    if source.is_c:
        match = re.match(r"/\*(.*?)\*/", text, re.S)
    elif source.is_python:
        match = re.match(r'"""(.*?)"""', text, re.S)
    else:
        match = re.match(r"((?:#[^\n]*\n)+)", text)
    if not match or len(match.group(1).strip()) < OPENING_CHARS_MIN:
        yield 1, "opens without a paragraph that tells its idea"


def texts(source):
    """Line length, tabs, space at line ends, a newline at the end."""
    for number, line in enumerate(source.lines, 1):
        if len(line) > LINE_MAX:
            yield number, f"{len(line)} columns; the limit is {LINE_MAX}"
        if "\t" in line:
            yield number, "a tab"
        if line.endswith((" ", "\r")):
            yield number, "space at the end of the line"
    if not source.text.endswith("\n") or source.text.endswith("\n\n"):
        yield len(source.lines), "ends without exactly one newline"


def sleeps(source):
    """A test waits for a condition, never for a time: only the helpers in tests/lib that poll one
    may sleep, on a line that says so with the words of WAIT_MARK."""
    if source.folder != "tests":
        pattern = r"\b(?:sleep|usleep|uv_sleep)\s*\(" if source.is_c else None
    elif source.is_c:
        pattern = SLEEP_C
    else:
        pattern = r"\bsleep\s*\(" if source.is_python else r"\bsleep\s+[\"'$\d.]"
    if not pattern:
        return
    for number, line in enumerate(source.code.split("\n"), 1):
        marked = WAIT_MARK in source.lines[number - 1] and source.path.startswith("tests/lib/")
        if re.search(pattern, line) and not marked:
            yield number, f"sleeps; only a helper of tests/lib may, marked '{WAIT_MARK}'"


def interpreters(source):
    """Python programs run under Debian's own Python: only that one is sure to have the packages
    that `./dev deps` installs, whatever other Python stands first on the PATH."""
    first = source.lines[0]
    if source.is_python and first.startswith("#!") and first != "#!/usr/bin/python3":
        yield 1, "not run by /usr/bin/python3, which has Debian's packages"


RULES = {"layers": layers, "calls": calls, "sizes": sizes, "openings": openings, "texts": texts,
         "sleeps": sleeps, "interpreters": interpreters}


def sources(root):
    """Every file of the tree that the rules are for."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not NOT_OURS.match(n))
        for name in sorted(files):
            path = os.path.join(folder, name)
            inside = os.path.relpath(path, root)
            if os.path.islink(path) or not wanted(path, name):
                continue
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                yield Source(inside, file.read())


def wanted(path, name):
    if name.endswith((".c", ".h", ".py", ".sh", ".cmake")) or name == "CMakeLists.txt":
        return True
    if "." in name:
        return False
    with open(path, "rb") as file:
        return re.match(rb"#!.*\b(bash|sh|python3)\n", file.read(64)) is not None


def check(root, names=None):
    """Findings of the named rules (all by default) as lines `path:line: message`."""
    found = []
    for source in sources(root):
        for name in names or RULES:
            found += [f"{source.path}:{line}: {text}" for line, text in RULES[name](source)]
    return found
