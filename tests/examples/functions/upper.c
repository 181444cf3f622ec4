/* upper: copies standard input to standard output, ASCII letters in upper case.
 * With the argument "rot13" it applies ROT13 instead. Every other byte is kept as it is. */
#include <stdio.h>
#include <string.h>

static int upper(int c)
{
    return c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c;
}

static int rot13(int c)
{
    if (c >= 'a' && c <= 'z')
        return 'a' + (c - 'a' + 13) % 26;
    if (c >= 'A' && c <= 'Z')
        return 'A' + (c - 'A' + 13) % 26;
    return c;
}

int main(int argc, char **argv)
{
    static unsigned char buffer[65536];
    int (*map)(int) = argc > 1 && strcmp(argv[1], "rot13") == 0 ? rot13 : upper;
    size_t n;

    while ((n = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
        for (size_t i = 0; i < n; i++)
            buffer[i] = (unsigned char)map(buffer[i]);
        if (fwrite(buffer, 1, n, stdout) != n)
            return 1;
    }
    return ferror(stdin) || fflush(stdout) != 0;
}
