#!/usr/bin/env bash
# Builds the example of the embedded library against the built library and runs it twice: the second
# run must find what the first one wrote. The header must be good for C++ as well.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

show() { # NAME COMMAND...: one line for what the command shows
    local name=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        echo "ok $name"
    else
        echo "not ok $name: $(tail -n 1 "$work/out")"
        cat "$work/out"
        failed=1
    fi
}

builds() {
    cc -std=c11 -Wall -Wextra -Werror -I"$root/api" "$root/api/examples/embed.c" -o "$work/embed" \
        "$root/build/libconclave.so" -Wl,-rpath,"$root/build"
}

runs() { # NUMBER: the n-th run says so, and shows the settings in order
    local said
    said=$("$work/embed" "$work/data") || return 1
    echo "$said"
    [ "$said" = "settings/colour = blue
settings/size = large
this is run number $1" ]
}

says_what_is_wrong() {
    local said
    said=$("$work/embed" "$work/embed" 2>&1) && return 1
    echo "$said"
    [[ $said == "open: "* ]]
}

cpp_takes_the_header() {
    printf '#include <conclave.h>\nint main() { return ccl_version() == nullptr; }\n' \
        >"$work/use.cc"
    c++ -std=c++17 -Wall -Wextra -Werror -I"$root/api" "$work/use.cc" -o "$work/use" \
        "$root/build/libconclave.so" -Wl,-rpath,"$root/build" && "$work/use"
}

show "the example builds without a warning" builds
show "the example runs" runs 1
show "the example finds what it wrote" runs 2
show "the example says what is wrong" says_what_is_wrong
if command -v c++ >/dev/null; then show "the header is good for C++" cpp_takes_the_header; fi
exit "$failed"
