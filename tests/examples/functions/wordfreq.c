/* wordfreq: prints the most frequent words of standard input as "count word" lines,
 * the most frequent first, equal counts in alphabetical order.
 * The argument is how many to print; 10 if there is none. A word is a run of ASCII letters,
 * digits or bytes above 127; ASCII letters are lowered; words are cut at 63 bytes. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct entry {
    char *word;
    unsigned long count;
} *table;
static size_t capacity, used;

static struct entry *slot(struct entry *in, size_t size, const char *word)
{
    size_t hash = 2166136261u;
    for (const char *p = word; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    size_t i = hash & (size - 1);
    while (in[i].word && strcmp(in[i].word, word) != 0)
        i = (i + 1) & (size - 1);
    return &in[i];
}

static void *must(void *p)
{
    if (p)
        return p;
    fputs("wordfreq: out of memory\n", stderr);
    exit(2);
}

static void grow(void)
{
    size_t size = capacity ? 2 * capacity : 1024;
    struct entry *bigger = must(calloc(size, sizeof *bigger));
    for (size_t i = 0; i < capacity; i++)
        if (table[i].word)
            *slot(bigger, size, table[i].word) = table[i];
    free(table);
    table = bigger;
    capacity = size;
}

static void add(const char *word)
{
    if (2 * used >= capacity)
        grow();
    struct entry *e = slot(table, capacity, word);
    if (!e->word) {
        e->word = must(strdup(word));
        used++;
    }
    e->count++;
}

static int by_count(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return x->word && y->word ? strcmp(x->word, y->word) : 0;
}

int main(int argc, char **argv)
{
    size_t wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 10, length = 0;
    char word[64];
    int c;
    do {
        c = getchar();
        if (c > 127 || isalnum(c)) {
            if (length < sizeof word - 1)
                word[length++] = (char)(c > 127 ? c : tolower(c));
        } else if (length) {
            word[length] = 0;
            add(word);
            length = 0;
        }
    } while (c != EOF);
    qsort(table, capacity, sizeof *table, by_count);
    for (size_t i = 0; i < wanted && i < used; i++)
        printf("%lu %s\n", table[i].count, table[i].word);
    return ferror(stdin) || fflush(stdout) != 0;
}
