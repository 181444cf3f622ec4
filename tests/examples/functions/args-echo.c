/* args-echo: prints its arguments, the name first, one per line. Ignores its input. */
#include <stdio.h>

int main(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        puts(argv[i]);
    return fflush(stdout) != 0;
}
