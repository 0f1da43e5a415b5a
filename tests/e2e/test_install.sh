#!/usr/bin/env bash
# Installs the build into a fresh place and uses it from there as a stranger would: a program is
# built against the library by pkg-config (shared and static) and by CMake, and the shared library
# exports nothing but its public names.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
place=$work/place
failed=0

if [ ! -e "$root/api/conclave.h" ]; then
    echo "skip installation: api/conclave.h is not there yet"
    exit 0
fi

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

installs() { cmake --install "$root/build" --prefix "$place" && use_it; }

use_it() { # a program that needs one symbol of the library, whichever is declared first
    local symbol
    symbol=$(grep -oE '\bccl_[a-z_]+\(' "$place/include/conclave.h" | head -n 1 | tr -d '(')
    [ -n "$symbol" ] || { echo "conclave.h declares no ccl_ function"; return 1; }
    printf '#include <conclave.h>\nint main(void) { return (void *)%s == (void *)0; }\n' \
        "$symbol" >"$work/use.c"
}

pkg_config_shared() {
    cc "$work/use.c" -o "$work/shared" $(pkg-config --cflags --libs conclave) &&
        LD_LIBRARY_PATH=$libraries "$work/shared"
}

pkg_config_static() {
    cc "$work/use.c" -o "$work/static" $(pkg-config --cflags conclave) -Wl,-Bstatic \
        -L"$libraries" -lconclave -Wl,-Bdynamic $(pkg-config --static --libs conclave) &&
        ! ldd "$work/static" | grep libconclave && "$work/static"
}

cmake_package() {
    mkdir -p "$work/cmake"
    cat >"$work/cmake/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.25)
project(use C)
find_package(conclave 0.1 REQUIRED)
add_executable(use $work/use.c)
target_link_libraries(use Conclave::conclave)
CMAKE
    cmake -G Ninja -S "$work/cmake" -B "$work/cmake/b" -DCMAKE_PREFIX_PATH="$place" &&
        cmake --build "$work/cmake/b" && "$work/cmake/b/use"
}

only_public_names() {
    local others
    others=$(nm -D --defined-only "$libraries/libconclave.so" |
        awk '$3 !~ /^(ccl_|CCL_|CONCLAVE_)/')
    [ -z "$others" ] || { echo "libconclave.so also exports:" $others; return 1; }
}

show "the build installs" installs
pc=$(find "$place" -name conclave.pc)
export PKG_CONFIG_PATH=${pc%/*}
libraries=$(pkg-config --variable=libdir conclave)
show "a program links with pkg-config" pkg_config_shared
show "a program links statically with pkg-config" pkg_config_static
show "a program links with find_package" cmake_package
show "the shared library exports only its public names" only_public_names
if [ -x "$root/build/conclave" ]; then
    show "the installed binary runs" "$place/bin/conclave" --help
fi
exit "$failed"
