/* The benchmarks of conclave-bench: one function each, called with its own name as argv[0]; the
 * result is the exit code. main.c has the table. */
#ifndef CONCLAVE_BENCH_H
#define CONCLAVE_BENCH_H

int bench_store(int argc, char **argv);

#endif
