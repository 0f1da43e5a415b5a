/* The program `conclave`: server and command line. All of it is behind cli_main. */
#include "api/cli.h"

int main(int argc, char **argv) { return cli_main(argc, argv); }
